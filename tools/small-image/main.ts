/** Command line of the recipe: `tsx tools/small-image/main.ts OUTPUT_DIRECTORY [CACHE_DIRECTORY]`. */
import { join, resolve } from 'node:path';
import { isRoostError } from '../../protocol/errors.ts';
import { buildSmallImage } from './build-small-image.ts';

const [output, cache] = process.argv.slice(2);
if (output === undefined) {
  console.error('usage: tsx tools/small-image/main.ts OUTPUT_DIRECTORY [CACHE_DIRECTORY]');
  process.exit(2);
}

const interrupted = new AbortController();
process.once('SIGINT', () => interrupted.abort());
process.once('SIGTERM', () => interrupted.abort());

try {
  await buildSmallImage({
    outputDirectory: resolve(output),
    cacheDirectory: resolve(cache ?? join(output, 'packages')),
    onProgress: ({ done, total, message }) => console.log(`[${done}/${total}] ${message}`),
    signal: interrupted.signal,
  });
} catch (error) {
  console.error(
    interrupted.signal.aborted ? 'Interrupted.' : error instanceof Error ? error.message : String(error),
  );
  if (isRoostError(error) && error.hint !== undefined) console.error(error.hint);
  process.exitCode = 1;
}

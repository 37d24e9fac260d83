/**
 * Finds the project's compiled parts, which tools/build-native.mjs puts under `build/`.
 *
 * The same walk serves the sources (`native/`) and the bundle (`dist/`): upwards from this module until a
 * folder has the file.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * @param relativePath below the project's root, as in `build/native/roost.node`
 * @param override name of the environment variable that names the file instead
 * @throws Error saying where it was looked for and how to build it
 */
export function locateBuilt(relativePath: string, override: string): string {
  const named = process.env[override];
  if (named !== undefined && named !== '') return named;
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    const candidate = join(folder, relativePath);
    if (existsSync(candidate)) return candidate;
    if (folder === dirname(folder)) break;
  }
  throw new Error(
    `${relativePath} is not in ${import.meta.dirname} or any folder above it. ` +
      `Build it with "node tools/build-native.mjs", or name the file in ${override}.`,
  );
}

/**
 * Runs `nft`: one transaction a call, all of it or nothing (nft(8), "ruleset … atomic").
 *
 * It stands on the way of every guest's start, so it goes by `execFile` with the text as argument: some 2 ms less than
 * through lib/exec.ts, which a whole attach has 8 of.
 */
import { execFile } from 'node:child_process';
import { enter, tookMs } from '../../lib/account.ts';
import { missingTool, toolFailed } from './host-tool.ts';

const TIMEOUT_MS = 60_000;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/** Errors: Unsupported when there is no nft, HostError with its words; the signal's reason. */
export function nft(args: readonly string[], signal: AbortSignal): Promise<string> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const options = {
      signal,
      timeout: TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
      env: { ...process.env, LC_ALL: 'C' },
    };
    execFile('nft', args, options, (error, stdout, stderr) => {
      const said = error === null ? {} : { error: stderr.trim() || error.message };
      enter({ kind: 'tool', argv: ['nft', ...args], ms: tookMs(startedAt), ...said });
      if (error === null) resolve(stdout);
      else if (signal.aborted) reject(signal.reason as Error);
      else if (error.code === 'ENOENT') reject(missingTool('nft', error));
      else reject(toolFailed('nft refused', stderr || error.message, error));
    });
  });
}

/** Runs a transaction against objects that may be gone altogether, with their table; then nothing is done. */
export async function nftIfPresent(
  args: readonly string[],
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    return await nft(args, signal);
  } catch (error) {
    if (error instanceof Error && error.message.includes('No such file or directory')) return undefined;
    throw error;
  }
}

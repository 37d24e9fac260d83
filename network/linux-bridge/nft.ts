/** Runs `nft`: one transaction a call, all of it or nothing (nft(8), "ruleset … atomic"). */
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import { missingTool, toolFailed } from './host-tool.ts';

const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/** Errors: Unsupported when there is no nft, HostError with its words; the signal's reason. */
export async function nft(args: readonly string[], signal: AbortSignal): Promise<string> {
  try {
    const options = { signal, maxOutputBytes: MAX_OUTPUT_BYTES, env: { LC_ALL: 'C' } };
    return (await runTool(['nft', ...args], options)).stdout;
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    if (error.wasNotFound) throw missingTool('nft', error);
    throw toolFailed('nft refused', error.stderr || error.message, error);
  }
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

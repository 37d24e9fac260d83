/** Runs `ip`, and turns a tool's failure into an error that a person can act on. */
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import { RoostError } from '../../protocol/errors.ts';

/** Debian packages of the tools, for hints. */
const PACKAGES: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  nft: 'nftables',
  dnsmasq: 'dnsmasq-base',
};

export const missingTool = (tool: string, cause?: unknown): RoostError =>
  new RoostError('Unsupported', `The program ${tool} could not be run`, {
    cause,
    data: { tool },
    hint: `Install the package ${PACKAGES[tool] ?? tool}; bridged networks need it.`,
  });

export const toolFailed = (what: string, said: string, cause?: unknown): RoostError =>
  new RoostError('HostError', `${what}: ${said.trim().split('\n').slice(-3).join(' · ') || 'no message'}`, {
    cause,
    data: { said: said.trim() },
    hint: 'The message is the own word of the host; mend what it names and try again.',
  });

/** Runs `ip` and gives its output. `batch` is a list of its commands, done in order up to the first that fails. */
export async function ip(
  request: { readonly args: readonly string[] } | { readonly batch: readonly string[] },
  signal: AbortSignal,
): Promise<string> {
  try {
    const { stdout } =
      'batch' in request
        ? await runTool(['ip', '-batch', '-'], { signal, input: `${request.batch.join('\n')}\n` })
        : await runTool(['ip', ...request.args], { signal });
    return stdout;
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    if (error.wasNotFound) throw missingTool('ip', error);
    throw toolFailed('ip failed', error.stderr || error.message, error);
  }
}

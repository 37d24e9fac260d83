/**
 * Names of guests on the host itself: systemd-resolved is told to ask a network's server for the network's domain, and
 * for nothing else (resolvectl(1), systemd.network(5) "routing-only domains"). It forgets a link when the link goes, so
 * nothing is ever taken back.
 */
import { access } from 'node:fs/promises';
import { ExecError } from '../../lib/exec-result.ts';
import type { Log } from '../../lib/log.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { Site } from './site.ts';

/** There while systemd-resolved runs (systemd-resolved.service(8)). */
const RUNTIME_DIRECTORY = '/run/systemd/resolve';
const TIMEOUT_MS = 10_000;

export interface ResolvedOptions {
  /** Program that talks to it; found by PATH unless given. */
  readonly program?: string;
  readonly runtimeDirectory?: string;
  readonly log?: Log;
}

/** Command lines that tell resolved of a network, in their order. */
export const resolvedCommands = ({ bridge, gateway, networkName }: Site): readonly (readonly string[])[] => [
  ['dns', bridge, gateway],
  // With a tilde names below the domain are asked there, and no single-label name is completed by it.
  ['domain', bridge, `~${networkName}`],
  ['default-route', bridge, 'no'],
  // The domain is signed by nobody, and guests have no other names than those of their server.
  ['dnssec', bridge, 'no'],
  ['llmnr', bridge, 'no'],
  ['mdns', bridge, 'no'],
];

/**
 * Tells resolved of a network, again where it has lost it. Resolves with whether this host now resolves the network's
 * names; a host without resolved is no failure, nor is one that refuses: guests have their names in any case.
 */
export async function tellResolved(
  site: Site,
  options: ResolvedOptions,
  signal: AbortSignal,
): Promise<boolean> {
  const { program = 'resolvectl', runtimeDirectory = RUNTIME_DIRECTORY, log } = options;
  const runs = await access(runtimeDirectory).then(
    () => true,
    () => false,
  );
  if (!runs) return false;
  const ask = (args: readonly string[]): Promise<{ stdout: string }> =>
    runTool([program, ...args], { signal, timeoutMs: TIMEOUT_MS, env: { LC_ALL: 'C' } });
  try {
    if (knows((await ask(['domain', site.bridge])).stdout, site)) return true;
    for (const command of resolvedCommands(site)) await ask(command);
    return true;
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    log?.warn({ err: error, network: site.networkName }, 'systemd-resolved could not be told of the network');
    return false;
  }
}

/** `Link 7 (rbabcde1): ~default` */
const knows = (said: string, { networkName }: Site): boolean =>
  said.trim().split(/\s+/).includes(`~${networkName}`);

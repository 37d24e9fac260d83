/**
 * A bench for the linux-bridge backend: directories of its own in the namespace's /run, below one that is closed to
 * everybody but root.
 */
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { linuxBridgeBackend } from '../../../network/linux-bridge/linux-bridge.ts';
import type { NetworkBench } from '../../conformance/network.ts';

export const run = promisify(execFile);

/** Where nothing else of the host is: a fresh /run, and loopback up. Once for each file of tests. */
export async function prepareNamespace(): Promise<void> {
  const { stdout } = await run('ip', ['-json', 'link', 'show']);
  const names = (JSON.parse(stdout) as { ifname: string }[]).map((link) => link.ifname);
  if (names.some((name) => name !== 'lo'))
    throw new Error(`These tests need a network namespace of their own; here is ${names.join(' ')}`);
  await run('mount', ['-t', 'tmpfs', 'tmpfs', '/run']);
  await run('ip', ['link', 'set', 'lo', 'up']);
}

export async function linuxBridgeBench(): Promise<NetworkBench> {
  const root = await mkdtemp('/run/bench-');
  await chmod(root, 0o700);
  return {
    backend: () => linuxBridgeBackend(),
    stateDirectory: join(root, 'state'),
    runDirectory: join(root, 'run'),
    release: async () => {
      await rm(root, { recursive: true, force: true });
      const left = await readdir('/run');
      if (left.length > 0) throw new Error(`Left in /run: ${left.join(' ')}`);
    },
  };
}

/**
 * A QEMU that misbehaves on purpose, launched by the real driver under a whole daemon. Whatever it does, the daemon
 * answers everybody else meanwhile, the guest's state says what is wrong with it, and it can be deleted.
 */
import { chmod, copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { connect } from '../../cli/client.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { describeWith } from '../harness/needs.ts';
import { type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { timeoutMs } from './scale.ts';

/** What a start comes to: how its operation ends, if it does, the state of the guest, and what is said of it. */
interface Outcome {
  readonly operation: 'failed' | 'succeeded' | 'waiting';
  readonly state: GuestView['state'];
  readonly says: RegExp;
}

const waits: Outcome = { operation: 'waiting', state: 'unresponsive', says: /^busy$/ };
const runs: Outcome = { operation: 'succeeded', state: 'running', says: /^$/ };
const fails = (says: RegExp): Outcome => ({ operation: 'failed', state: 'failed', says });

const behaviours: Readonly<Record<string, Outcome>> = {
  'dies-before': fails(/ended at once with status 1/),
  'dies-in-handshake': fails(/ended at once with status 1/),
  'no-greeting': waits,
  'half-a-greeting': waits,
  'no-negotiation': waits,
  'never-answers': waits,
  'half-a-value': waits,
  'hangs-up': fails(/connection|monitor|QEMU/i),
  'not-json': fails(/connection|monitor|QEMU/i),
  'unknown-ids': runs,
  'error-without-id': runs,
  'large-reply': runs,
  late: runs,
  flood: runs,
};

/** Until the start has ended or the guest shows why it has not. */
const comesTo = async (daemon: RealDaemon, name: string, operation: string): Promise<unknown> => {
  const ended = daemon.client.callAny('operation-wait', { operation }) as Promise<OperationView>;
  const first = await Promise.race([
    ended,
    daemon.guestWhen(name, ({ state }) => state === 'unresponsive').then(() => undefined),
  ]);
  // It answers everything late, so that its guest is unresponsive and heard again by turns.
  const late = name === 'late' ? await ended : first;
  const shown =
    name === 'late' ? await daemon.guestWhen(name, ({ state }) => state === 'running') : undefined;
  const { state, reason } = shown ?? (await daemon.guest(name));
  return { operation: late?.state ?? 'waiting', state, says: late?.error?.desc ?? reason ?? '' };
};

/** The executable where every guest's user can read it. */
const install = async (): Promise<string> => {
  const directory = await testDirectory();
  const source = join(import.meta.dirname, '../fake-qemu');
  for (const name of ['misbehaving-qemu.mjs', 'misbehaving-qemu.json'])
    await copyFile(join(source, name), join(directory, name));
  await chmod(join(directory, 'misbehaving-qemu.mjs'), 0o755);
  return join(directory, 'misbehaving-qemu.mjs');
};

/** Resolves with the first reply; the daemon has others to serve and must not keep this one waiting. */
const answers = async (daemon: RealDaemon, socketPath: string): Promise<void> => {
  const other = await connect({ socketPath, signal: new AbortController().signal, timeoutMs: 60_000 });
  await other.call('query-guests', {});
  other.close();
  expect((await daemon.client.call('query-daemon', {})).ready).toBe(true);
};

describeWith(['qemu', 'qemu-img'], 'a QEMU that misbehaves', () => {
  it.each(Object.entries(behaviours))('%s', { timeout: timeoutMs }, async (name, outcome) => {
    const binary = await install();
    const home = await testDaemonHome({ ownNamespace: false });
    const configPath = join(await testDirectory(), 'roostd.yaml');
    await writeFile(configPath, `qemu:\n  binaries:\n    default: ${binary}\n`);
    const daemon = await home.start({ args: ['--config', configPath] });
    const socketPath = join(home.runDirectory, 'roost.sock');
    const disks = [{ sizeBytes: MEBIBYTE }];
    const guest = { name, memoryBytes: 16 * MEBIBYTE, disks, qemu: { accel: 'tcg' as const } };
    await daemon.succeed('guest-create', guest);
    const { operation } = await daemon.client.call('guest-start', { guest: name });
    expect(await comesTo(daemon, name, operation)).toEqual({
      ...outcome,
      says: expect.stringMatching(outcome.says),
    });
    await answers(daemon, socketPath);
    await daemon.succeed('guest-delete', { guest: name, force: true });
    await answers(daemon, socketPath);
    expect(daemon.log()).not.toMatch(/unexpectedly|without an owner/);
    await daemon.stop();
    const { ledger, host } = await home.compare();
    expect(host).toEqual(ledger);
  });
});

/** For tests that end parts of a container: which process of the host is what, and what of one is left. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { writableHierarchies } from '../../lib/control-groups.ts';
import type { GuestId, InstanceId } from '../../protocol/types.ts';

/** What runs a container, from the outside in. The agent is there once it listens. */
export type Part = 'warden' | 'lxc-start' | 'init' | 'agent';

const GRACE_MS = 5_000;

const numbersIn = (text: string): readonly number[] => text.split(/\s+/).filter(Boolean).map(Number);

const childrenOf = async (pid: number): Promise<readonly number[]> =>
  numbersIn(await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => ''));

const argvOf = async (pid: number): Promise<readonly string[]> =>
  (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');

const childNamed = async (pid: number, fits: (program: string) => boolean): Promise<number | undefined> => {
  for (const child of await childrenOf(pid)) if (fits((await argvOf(child))[0] ?? '')) return child;
  return undefined;
};

const partOf = async (warden: number, part: Part): Promise<number | undefined> => {
  if (part === 'warden') return warden;
  const starter = await childNamed(warden, (program) => program.endsWith('/lxc-start'));
  if (part === 'lxc-start' || starter === undefined) return starter;
  if (part === 'init') return (await childrenOf(starter))[0];
  const attach = await childNamed(warden, (program) => program.endsWith('/lxc-attach'));
  return attach === undefined ? undefined : (await childrenOf(attach))[0];
};

/** Number of a part's process on the host. */
export const pidOf = async (warden: number, part: Part): Promise<number> => {
  const pid = await partOf(warden, part);
  if (pid === undefined) throw new Error(`the container of warden ${warden} has no ${part}`);
  return pid;
};

/** Places of all hierarchies of control groups. */
export const groupMounts = async (): Promise<readonly string[]> =>
  writableHierarchies(await readFile('/proc/self/mountinfo', 'utf8'), () => []).map(({ mount }) => mount);

/** Groups of a container, in every hierarchy that has one of its name. */
export const groupsOf = async (instance: InstanceId, id: GuestId): Promise<readonly string[]> => {
  const name = `roost-${instance}-${id}`;
  const found = await Promise.all(
    (await groupMounts()).map(async (mount) =>
      (await readdir(mount).catch(() => []))
        .filter((entry) => entry === name)
        .map((entry) => join(mount, entry)),
    ),
  );
  return found.flat();
};

/** Processes in groups of a guest, as the kernel tells of each; those that cannot die are among them, zombies are not. */
export const membersOf = async (instance: InstanceId, id: GuestId): Promise<readonly string[]> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [groups, stat] = await Promise.all(
        ['cgroup', 'stat'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
      );
      const state = stat?.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
      return groups?.includes(`/roost-${instance}-${id}`) === true && state !== 'Z'
        ? [`${pid} (${state}): ${(await argvOf(Number(pid))).join(' ').trim()}`]
        : [];
    }),
  );
  return found.flat();
};

/** Waits for what comes about without any event that a test could wait for. */
export const untilSo = async <T>(what: () => Promise<T>, expected: T): Promise<void> => {
  const until = performance.now() + GRACE_MS;
  for (;;) {
    const now = await what();
    if (performance.now() > until) expect(now).toEqual(expected);
    if (JSON.stringify(now) === JSON.stringify(expected)) return;
    await delay(20);
  }
};

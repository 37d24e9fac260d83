/**
 * What a test file left behind. Looks only for what is certainly its own: by the marker in the environment of its
 * descendants, by the temporary directory, by the instances it named.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type FoundProcess,
  listControlGroups,
  listLinks,
  listLoops,
  listMounts,
  listNamespaces,
  listProcesses,
  listTables,
} from './host-objects.ts';
import type { Worker } from './worker.ts';

/** How long something that is already ending may take to be gone. */
const GRACE_MS = 3_000;
/** Caches of tools that a test runs; they outlive it on purpose. */
const caches = /^(tsx-\d+|node-compile-cache)$/;
/** Kinds of handles that belong to code under test; the runner itself has others. */
const handleKinds = new Set([
  'Timeout',
  'ProcessWrap',
  'PipeWrap',
  'TCPServerWrap',
  'TCPSocketWrap',
  'FSEventWrap',
  'FSEvent',
]);

export type HandleCounts = ReadonlyMap<string, number>;

/** Open handles that keep this process alive, by kind. */
export function countHandles(): HandleCounts {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) {
    if (handleKinds.has(kind)) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return counts;
}

/** Files of this process that lie in the worker's directory, and taps. */
function openFiles(worker: Worker): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    let target = '';
    try {
      target = readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // The descriptor of this very listing.
    }
    const ours = target.startsWith(`${worker.directory}/`) || target === '/dev/net/tun';
    return ours ? [`open file ${fd}: ${target}`] : [];
  });
}

function isOurs(found: FoundProcess, worker: Worker): boolean {
  return (
    found.worker === worker.id ||
    found.parent === process.pid ||
    found.commandLine.includes(worker.directory) ||
    found.workingDirectory.startsWith(worker.directory)
  );
}

async function leftHostObjects(worker: Worker): Promise<readonly string[]> {
  const instances = [...worker.instances];
  const ours = (name: string): boolean =>
    name.includes(worker.id) || instances.some((instance) => name.includes(instance));
  const lists: readonly (readonly [string, readonly string[]])[] = [
    ['mount', await listMounts()],
    ['loop device', await listLoops()],
    ['network namespace', await listNamespaces()],
    ['link', await listLinks()],
    ['nft table', instances.length > 0 ? await listTables() : []],
    ['control group', instances.length > 0 ? await listControlGroups() : []],
  ];
  return lists.flatMap(([kind, names]) => names.filter(ours).map((name) => `${kind} ${name}`));
}

/** Everything left at this moment, one line each. */
export async function findLeaks(worker: Worker, handlesBefore: HandleCounts): Promise<readonly string[]> {
  const processes = (await listProcesses()).filter((found) => isOurs(found, worker));
  const entries = await readdir(worker.directory).catch(() => []);
  const handles = [...countHandles()].filter(([kind, count]) => count > (handlesBefore.get(kind) ?? 0));
  return [
    ...processes.map(({ pid, commandLine }) => `process ${pid}: ${commandLine}`),
    ...(await leftHostObjects(worker)),
    ...entries.filter((name) => !caches.test(name)).map((name) => `temporary file ${name}`),
    ...openFiles(worker),
    ...handles.map(([kind, count]) => `${count - (handlesBefore.get(kind) ?? 0)} more open ${kind}`),
  ];
}

/** Waits until nothing is left, at most for the grace; returns what is left then. */
export async function waitForNoLeaks(
  worker: Worker,
  handlesBefore: HandleCounts,
): Promise<readonly string[]> {
  const deadline = performance.now() + GRACE_MS;
  for (;;) {
    const left = await findLeaks(worker, handlesBefore);
    if (left.length === 0 || performance.now() > deadline) return left;
    // The end of processes that are nobody's children here has no event.
    await delay(50);
  }
}

/** Ends the processes and removes the files that were left, so that one mistake does not become the next one's. */
export async function cleanUp(worker: Worker): Promise<void> {
  for (const found of await listProcesses()) {
    if (!isOurs(found, worker)) continue;
    try {
      process.kill(found.pid, 'SIGKILL');
    } catch {
      // Gone meanwhile.
    }
  }
  await rm(worker.directory, { recursive: true, force: true });
}

/**
 * The identity of one test file's run. Every descendant process inherits it in its environment, and every temporary
 * directory lies under one that carries it, so that leftovers are known for whose they are while other files, and
 * other people, test on the same machine.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

export const MARKER = 'ROOST_TEST_WORKER';
export const DIRECTORY_PREFIX = 'roost-test-';

export interface Worker {
  readonly id: string;
  /** All that `os.tmpdir()` gives in this file and its child processes; anybody may pass through it. */
  readonly directory: string;
  /** Short ids of daemons whose bridges, tables and control groups lie outside any namespace of the test's own. */
  readonly instances: Set<string>;
}

function makeWorker(parent: string): Worker {
  // Short: paths of sockets in it have 107 bytes at most.
  const id = `${process.pid}-${randomBytes(2).toString('hex')}`;
  const directory = join(parent, `${DIRECTORY_PREFIX}${id}`);
  mkdirSync(directory);
  // Guests that run under a uid of their own have to reach their files in it.
  chmodSync(directory, 0o755);
  process.env[MARKER] = id;
  process.env.TMPDIR = directory;
  return { id, directory, instances: new Set() };
}

declare global {
  var roostTestWorker: Worker | undefined;
}

/** A new worker for the file that begins; files that share a process come one after the other. */
export function startWorker(): Worker {
  const earlier = globalThis.roostTestWorker;
  globalThis.roostTestWorker = makeWorker(earlier === undefined ? tmpdir() : dirname(earlier.directory));
  return globalThis.roostTestWorker;
}

/** This file's worker, one even where modules are loaded twice. */
export function worker(): Worker {
  return globalThis.roostTestWorker ?? startWorker();
}

/**
 * Names a daemon instance whose bridges, nft tables and control groups this file may leave in the host's own
 * namespaces; the leak check then looks for them.
 */
export function trackInstance(instance: string): void {
  worker().instances.add(instance);
}

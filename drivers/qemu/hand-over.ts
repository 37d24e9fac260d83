/**
 * A guest goes from one process of QEMU to another on the same host, as in a live migration: its memory is copied through a
 * pipe while it runs, what it has written since again and again, and it stands still for the last of it.
 *
 * Under TCG it stands still for all of it. There a virtual CPU that has looked an address up, and is then not scheduled for
 * a while, writes to a page after its copy was taken without marking it as written: guests that were handed over on a busy
 * host hung or reset.
 */
import { close } from 'node:fs';
import { promisify } from 'node:util';
import { deadline } from '../../lib/abort.ts';
import { openPipe } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import { lastLine, lastWords } from '../processes/guest-logs.ts';
import type { QmpEvent } from '../processes/qmp/qmp-types.ts';
import { type MigrationLine, migration, setCapabilities } from './migration.ts';

const closeDescriptor = promisify(close);

const PIPE_NAME = 'hand-over';
/** Bytes a second: no limit that a pipe would come to. */
const NO_LIMIT = 2 ** 36;
/** For how long it may stand still, by what QEMU has seen of its speed. */
const STANDSTILL_MS = 20;
/** A guest that writes faster than that is stopped, so that there is an end. */
const MOST_PASSES = 6;
/** To take it back after a failure. */
const TAKE_BACK_MS = 5_000;

/** `whileRunning`: whether its memory can be copied then. Errors: HostError, then the guest goes on; FailedPrecondition when either end is in the middle of another. */
export const handOver = async (
  from: MigrationLine,
  to: MigrationLine,
  { whileRunning }: { readonly whileRunning: boolean },
  signal: AbortSignal,
): Promise<{ readonly stoppedAt: number }> => {
  await requireFresh(from, to, signal);
  await givePipe(from, to, signal);
  let stoppedAt: number | undefined;
  const stopListening = from.events.onEvent(({ event, data, timestamp }: QmpEvent) => {
    if (event === 'STOP') stoppedAt ??= timestamp.seconds * 1000 + timestamp.microseconds / 1000;
    if (event === 'MIGRATION_PASS' && Number(data['pass']) >= MOST_PASSES)
      from.monitor.execute('stop', {}, signal).catch(() => undefined);
  });
  const failed = new AbortController();
  const both = AbortSignal.any([signal, failed.signal]);
  const uri = `fd:${PIPE_NAME}`;
  const end = async (line: MigrationLine, command: 'migrate' | 'migrate-incoming'): Promise<void> => {
    try {
      await migration(line, both, async () => void (await line.monitor.execute(command, { uri }, both)));
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  try {
    if (!whileRunning) await from.monitor.execute('stop', {}, signal);
    const ends = [end(to, 'migrate-incoming'), end(from, 'migrate')];
    for (const result of await Promise.allSettled(ends)) if (result.status === 'rejected') throw both.reason;
    return { stoppedAt: stoppedAt ?? Date.now() };
  } catch (error) {
    await takeBack(from);
    throw signal.aborted ? error : await inItsWords(to, error);
  } finally {
    stopListening();
  }
};

/** After a crash of the daemon they may be in the middle of one that nobody waits for. */
const requireFresh = async (from: MigrationLine, to: MigrationLine, signal: AbortSignal): Promise<void> => {
  const [{ status }, { status: receiver }] = await Promise.all([
    from.monitor.execute('query-status', {}, signal),
    to.monitor.execute('query-status', {}, signal),
  ]);
  if (status === 'running' && receiver === 'inmigrate') return;
  throw new RoostError(
    'FailedPrecondition',
    `Guest ${from.place.id} cannot be handed over: it is ${status}, and the receiver ${receiver}`,
    { data: { guest: from.place.id, status, receiver }, hint: 'Try again.' },
  );
};

const givePipe = async (from: MigrationLine, to: MigrationLine, signal: AbortSignal): Promise<void> => {
  const { readEnd, writeEnd } = openPipe();
  try {
    for (const { monitor } of [from, to]) await setCapabilities(monitor, { withMemory: true }, signal);
    const limits = { 'max-bandwidth': NO_LIMIT, 'downtime-limit': STANDSTILL_MS };
    await from.monitor.execute('migrate-set-parameters', limits, signal);
    await to.monitor.sendDescriptor(PIPE_NAME, readEnd, signal);
    await from.monitor.sendDescriptor(PIPE_NAME, writeEnd, signal);
  } finally {
    await Promise.all([closeDescriptor(readEnd), closeDescriptor(writeEnd)]);
  }
};

/** A receiver that cannot take what comes says why, and ends. */
const inItsWords = async ({ place }: MigrationLine, error: unknown): Promise<unknown> => {
  const said = await lastWords(place).catch(() => '');
  if (said === '' || !(error instanceof RoostError)) return error;
  return new RoostError(error.class, `${error.message}; the receiver said: ${lastLine(said)}`, {
    cause: error,
    data: { ...error.data, said },
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
};

/** The guest goes on where it was, whatever was cancelled. Failures are those of whoever asks it next. */
const takeBack = async ({ monitor }: MigrationLine): Promise<void> => {
  using limit = deadline(TAKE_BACK_MS);
  await monitor.execute('migrate_cancel', {}, limit.signal).catch(() => undefined);
  await monitor.execute('cont', {}, limit.signal).catch(() => undefined);
};

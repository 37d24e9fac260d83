/**
 * The n-th write to the database fails, for every n that there is: the disk is full from there on or for a moment, its
 * hardware fails, its file system is not written any more. Each time, while real guests run: what cannot be written down
 * is refused as ResourceExhausted, the daemon answers, the guests run on, and once the disk takes writes again all that
 * was asked for can be asked for again and nothing is left over. A daemon that cannot start says so, and the next one
 * starts. The short form takes some of the writes by chance.
 */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { CliFailure } from '../../cli/failure.ts';
import { deadline, waitOrAbort } from '../../lib/abort.ts';
import type { ErrorClass } from '../../protocol/errors.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';
import { type WriteFault, type WriteFaults, writeFaults } from '../harness/write-faults.ts';
import { guestPids } from './inspector.ts';
import { figure, isLong, progress, seededRandom, sized, timeoutMs } from './scale.ts';

const STUCK_MS = 60_000;

/** Ways in which a disk fails, each with its name for the figures. */
const faults: Readonly<Record<string, Omit<WriteFault, 'from'>>> = {
  'full from then on': { errno: 'ENOSPC', lasting: true },
  'full for a moment': { errno: 'ENOSPC', lasting: false },
  'an error of the disk': { errno: 'EIO', lasting: false },
  'not written any more': { errno: 'EROFS', lasting: true },
};

/** On fakes a life takes little time, so that many of the writes have their turn. */
const kinds = {
  fakes: {
    guest: (name: string) => ({ name, memoryBytes: MEBIBYTE, disks: [{ sizeBytes: MEBIBYTE }] }),
    tried: sized({ short: 6, long: Number.POSITIVE_INFINITY }),
  },
  'real parts': {
    guest: (name: string) => tinyGuest(name, 'idle'),
    tried: sized({ short: 2, long: 40 }),
  },
} as const;
type Kind = keyof typeof kinds;

/** A life that writes everything that is written. */
const lifeOf = (kind: Kind) =>
  [
    ['guest-create', { ...kinds[kind].guest('x'), start: true }],
    ['guest-update', { guest: 'x', description: 'told once' }],
    ['guest-pause', { guest: 'x' }],
    ['guest-resume', { guest: 'x' }],
    ['guest-stop', { guest: 'x', force: true }],
    ['guest-delete', { guest: 'x', force: true }],
  ] as const;

/** How one request ended: undefined when well. */
const outcomeOf = async (
  daemon: RealDaemon,
  command: string,
  args: Readonly<Record<string, unknown>>,
): Promise<{ readonly class: ErrorClass; readonly desc: string } | undefined> => {
  using limit = deadline(STUCK_MS);
  const ask = async (): Promise<OperationView['error']> => {
    const { operation } = (await daemon.client.callAny(command, args)) as { operation: string };
    return ((await daemon.client.callAny('operation-wait', { operation })) as OperationView).error;
  };
  try {
    return await waitOrAbort(ask(), limit.signal);
  } catch (error) {
    if (error instanceof CliFailure) return error.wire;
    throw new Error(`${command} has no end:\n${daemon.log().slice(-5_000)}`, { cause: error });
  }
};

/** What follows from a request that was refused before. */
const consequences: readonly ErrorClass[] = ['NotFound', 'FailedPrecondition', 'AlreadyExists'];

interface Setting {
  readonly kind: Kind;
  readonly home: DaemonHome;
  readonly daemon: RealDaemon;
  readonly writes: WriteFaults;
  /** Processes of the guest that runs through it all; fakes have none. */
  readonly steady: readonly number[];
}

interface Played {
  readonly errors: readonly string[];
  /** What no fault explains. */
  readonly wrong: readonly string[];
}

const playLife = async ({ daemon, kind }: Setting): Promise<Played> => {
  const errors: string[] = [];
  const wrong: string[] = [];
  for (const [command, args] of lifeOf(kind)) {
    const error = await outcomeOf(daemon, command, args);
    if (error === undefined) continue;
    const isStated =
      error.class === 'ResourceExhausted' || (errors.length > 0 && consequences.includes(error.class));
    errors.push(`${command} ${error.class}`);
    if (!isStated) wrong.push(`${command} ended with ${error.class}: ${error.desc}`);
    // While the disk fails it answers what it knows.
    await daemon.client.call('query-guests', {});
  }
  return { errors, wrong };
};

/** Resolves when every operation has an end, also those whose end could not be written before. */
const nothingUnderWay = async (daemon: RealDaemon): Promise<void> => {
  const { client } = daemon;
  using limit = deadline(STUCK_MS);
  const events = client.events();
  const iterator = events[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { operations } = await client.call('query-operations', {
        states: ['queued', 'running', 'undoing'],
      });
      if (operations.length === 0) return;
      await waitOrAbort(iterator.next(), limit.signal).catch((error: unknown) => {
        throw new Error(`${JSON.stringify(operations)} have no end:\n${daemon.log().slice(-5_000)}`, {
          cause: error,
        });
      });
    }
  } finally {
    events.close();
  }
};

/** One life under one fault, and another without any; whether the fault was met. */
const tryFault = async (setting: Setting, fault: WriteFault): Promise<boolean> => {
  const { home, daemon, writes, steady } = setting;
  await writes.arm(fault);
  const { errors, wrong } = await playLife(setting);
  const written = await writes.disarm();
  await nothingUnderWay(daemon);
  // What was not deleted is now; what is gone was.
  await outcomeOf(daemon, 'guest-delete', { guest: 'x', force: true });
  const after = await playLife(setting);
  const { guests } = await daemon.client.call('query-guests', {});
  expect({
    fault,
    errors,
    wrong,
    after,
    guests: guests.map(({ name, state }) => `${name} ${state}`),
    pids: await guestPids(home),
  }).toEqual({
    fault,
    errors,
    wrong: [],
    after: { errors: [], wrong: [] },
    guests: ['steady running'],
    pids: steady,
  });
  return written >= fault.from;
};

const settled = async (kind: Kind): Promise<Setting> => {
  const home = await testDaemonHome({ ownNamespace: false, onFakes: kind === 'fakes' });
  const directory = await testDirectory();
  const writes = await writeFaults('/roost.db');
  const daemon = await home.start({
    within: writes.within,
    ...(kind === 'fakes' ? { onFakes: { keepingPath: join(directory, 'keeping') } } : {}),
  });
  await daemon.client.call('events-subscribe', { events: ['OPERATION_CHANGED'] });
  if (kind === 'real parts') await importBootSector(daemon, 'idle');
  await daemon.succeed('guest-create', { ...kinds[kind].guest('steady'), start: true });
  return { kind, home, daemon, writes, steady: await guestPids(home) };
};

/** How many writes a life has that nothing happens to. */
const writesOfLife = async (setting: Setting): Promise<number> => {
  await setting.writes.arm({ errno: 'EIO', from: Number.MAX_SAFE_INTEGER, lasting: false });
  expect(await playLife(setting)).toEqual({ errors: [], wrong: [] });
  return await setting.writes.disarm();
};

const range = (length: number): readonly number[] => Array.from({ length }, (_, index) => index + 1);

/** Ledger and host after the daemon; what is pretended is gone with it. */
const compared = async ({ kind, home }: Setting): ReturnType<DaemonHome['compare']> =>
  kind === 'fakes' ? { ledger: [], host: [] } : await home.compare();

const cases = (Object.keys(kinds) as Kind[]).flatMap((kind) =>
  Object.entries(faults).map(([name, fault]) => [kind, name, fault] as const),
);

describeWith(['qemu', 'qemu-img'], 'a database whose writes fail', () => {
  it.each(cases)('under %s: %s', { timeout: timeoutMs }, async (kind, name, fault) => {
    const setting = await settled(kind);
    const { daemon } = setting;
    const random = seededRandom();
    const all = range(await writesOfLife(setting));
    const tried = random.sample(all, Math.min(all.length, kinds[kind].tried));
    let met = 0;
    for (const from of tried) met += (await tryFault(setting, { ...fault, from })) ? 1 : 0;
    // Moments differ from run to run, and with them some writes at the end.
    expect(met).toBeGreaterThan(tried.length / 2);
    expect(daemon.log()).not.toMatch(/unexpectedly|without an owner/);
    await daemon.stop();
    const { ledger, host } = await compared(setting);
    expect(host).toEqual(ledger);
    const told = `${met} of ${all.length}`;
    progress(`${kind}, ${name}: at ${told} writes of a life`);
    figure(`database under ${kind}, ${name}: writes of a life that failed, one after the other`, told);
  });

  it.each([
    [
      'full',
      { errno: 'ENOSPC', lasting: true },
      /roostd ended with 1:[^]*could not be written[^]*hint: Free space/,
    ],
    [
      'failing',
      { errno: 'EIO', lasting: false },
      /roostd ended with 1:[^]*could not be written[^]*what its disk suffers from/,
    ],
    [
      'read-only',
      { errno: 'EROFS', lasting: true },
      /roostd ended with 1:[^]*(could not|cannot) be written[^]*hint: /,
    ],
  ] as const)('that is %s when the daemon starts', { timeout: timeoutMs }, async (name, fault, refusal) => {
    const { home, daemon, writes, steady } = await settled('real parts');
    await daemon.stop();
    const outcomes = { refused: 0, started: 0 };
    const numbers = isLong ? range(1_000) : [1, 2, 5, 1_000];
    for (const from of numbers) {
      await writes.arm({ ...fault, from });
      const started = await home.start({ within: writes.within }).catch((error: unknown) => String(error));
      const isRefused = typeof started === 'string';
      const said = isRefused ? started : (await started.guest('steady')).state;
      expect(`at write ${from}: ${said}`).toMatch(isRefused ? refusal : /: running$/);
      outcomes[isRefused ? 'refused' : 'started'] += 1;
      const written = await writes.disarm();
      if (!isRefused) await started.stop();
      expect(await guestPids(home)).toEqual(steady);
      if (written < from) break;
    }
    expect(outcomes.refused).toBeGreaterThan(0);
    const next = await home.start();
    expect(await next.guest('steady')).toMatchObject({ state: 'running', process: { pid: steady[0] } });
    await next.stop();
    figure(`database, ${name} when the daemon starts: refused, started`, Object.values(outcomes).join(', '));
  });
});

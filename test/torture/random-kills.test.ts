/**
 * Rounds of chance: a burst of requests to thirty guests, and while they are served the daemon is killed, QEMUs are
 * killed and others are stopped in the middle of what they do. Then a new daemon. When nothing is under way any more the
 * ledger equals the host, no guest is lost, none is stuck, every request has one answer, and the daemon has not met a
 * defect of its own.
 */
import { expect, it } from 'vitest';
import { exitCodes } from '../../cli/exit-codes.ts';
import { CliFailure } from '../../cli/failure.ts';
import { deadline, waitOrAbort } from '../../lib/abort.ts';
import type { EventName } from '../../protocol/events.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { processEnd } from '../drivers/qemu/qemu-harness.ts';
import { describeWith } from '../harness/needs.ts';
import {
  type DaemonHome,
  type RealDaemon,
  type StartOptions,
  testDaemonHome,
} from '../harness/real-daemon.ts';
import { importBootSector } from '../harness/tiny-guests.ts';
import { type Asked, behaviours, Herd, type Outcome } from './herd.ts';
import { type Comparison, guestPids, type Inspector, launchedPids, openInspector } from './inspector.ts';
import type { Random } from './random.ts';
import { figure, progress, seededRandom, sized, timeoutMs } from './scale.ts';

const GUESTS = 30;
/** What hangs for so long is stuck; the longest wait that is nobody's fault is a stop's, and that is 2 s. */
const STUCK_MS = 120_000;
const SETTLED: readonly GuestView['state'][] = ['stopped', 'running', 'paused', 'failed'];

/** A thing that happens when so many events of the round have come. */
interface Mishap {
  readonly afterEvents: number;
  readonly what: 'kill daemon' | 'kill QEMU' | 'stop QEMU';
}

const counts = {
  asked: 0,
  daemon: 0,
  place: 0,
  starting: 0,
  killed: 0,
  stopped: 0,
  unresponsive: 0,
};

/** Sends a signal to a process that may be gone by now. */
const signal = (pid: number, name: NodeJS.Signals): boolean => {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
};

class Round {
  readonly home: DaemonHome;
  readonly random: Random;
  readonly stopped = new Set<number>();
  readonly daemon: RealDaemon;
  #mishaps: Mishap[];
  readonly #endures: boolean;
  readonly #over = new AbortController();
  #events = 0;

  constructor(home: DaemonHome, daemon: RealDaemon, random: Random) {
    this.home = home;
    this.daemon = daemon;
    this.random = random;
    this.#endures = random.chance(0.1);
    const mishap = (what: Mishap['what']): Mishap => ({ what, afterEvents: random.integer(0, 60) });
    this.#mishaps = [
      ...(random.chance(0.7) ? [mishap('kill daemon')] : []),
      ...Array.from({ length: random.integer(0, 3) }, () => mishap('kill QEMU')),
      ...Array.from({ length: random.integer(0, 2) }, () => mishap('stop QEMU')),
    ].sort((a, b) => a.afterEvents - b.afterEvents);
  }

  /** Asks for everything at once, lets happen what happens, and gives what was answered. */
  async serve(asked: readonly Asked[]): Promise<Map<Asked, Outcome | { readonly operation: string }>> {
    counts.asked += asked.length;
    const answers = new Map<Asked, Outcome | { readonly operation: string }>();
    const watching = this.#watch();
    const { client } = this.daemon;
    const served = asked.map(async (request) => {
      const answer = await ask(client, request);
      if (answer === undefined) return;
      answers.set(request, answer);
      if (!('operation' in answer) || 'kind' in answer) return;
      const ended = await client.callAny('operation-wait', answer).catch(() => undefined);
      if (ended !== undefined) answers.set(request, { kind: 'ended', operation: ended as OperationView });
    });
    await Promise.race([Promise.all(served), this.daemon.ended]);
    this.#over.abort();
    await watching;
    while (await this.#happen());
    // Most of the stopped ones go on before anybody looks; the others are met by the next daemon as they are.
    if (!this.#endures) this.letGo();
    return answers;
  }

  async #watch(): Promise<void> {
    const events = this.daemon.client.events();
    this.#over.signal.addEventListener('abort', () => events.close(), { once: true });
    try {
      for await (const { event, data } of events) {
        this.#events += 1;
        const silent = event === 'GUEST_STATE_CHANGED' && data['to'] === 'unresponsive';
        counts.unresponsive += silent ? 1 : 0;
        // Whoever waits for a stopped guest waits as long as it is stopped, and nothing else may be to come.
        while ((silent ? 0 : (this.#mishaps[0]?.afterEvents ?? Infinity)) <= this.#events)
          if (!(await this.#happen())) break;
        if (silent || (this.#mishaps.length === 0 && !this.#endures)) this.letGo();
      }
    } catch {
      // The daemon is gone.
    } finally {
      events.close();
    }
  }

  /** False when nothing is left to happen. */
  async #happen(): Promise<boolean> {
    const mishap = this.#mishaps.shift();
    if (mishap === undefined) return false;
    if (mishap.what === 'kill daemon') {
      counts.daemon += 1;
      await this.daemon.kill9();
      return true;
    }
    const pids = (await launchedPids(this.home)).filter((pid) => !this.stopped.has(pid));
    if (pids.length === 0) return true;
    const pid = this.random.pick(pids);
    if (mishap.what === 'kill QEMU') {
      const gone = processEnd({ pid });
      counts.killed += signal(pid, 'SIGKILL') ? 1 : 0;
      await gone;
    } else if (signal(pid, 'SIGSTOP')) {
      counts.stopped += 1;
      this.stopped.add(pid);
    }
    return true;
  }

  letGo(): void {
    for (const pid of this.stopped) signal(pid, 'SIGCONT');
    this.stopped.clear();
  }
}

/** Whether the connection ended, and not merely a request. */
const isLoss = (error: unknown): boolean =>
  error instanceof CliFailure && error.exitCode === exitCodes.unreachable.code;

/** The operation, why it was refused, or nothing when the connection was lost first. */
const ask = async (
  client: RealDaemon['client'],
  { command, args }: Asked,
): Promise<Outcome | { readonly operation: string } | undefined> => {
  try {
    const { operation } = (await client.callAny(command, args)) as { operation: string };
    return { operation };
  } catch (error) {
    if (!(error instanceof CliFailure)) throw error;
    if (isLoss(error)) return undefined;
    return { kind: 'refused', errorClass: error.wire.class, message: error.wire.desc };
  }
};

/** What a guest or an operation does; not what QEMU says, for some guests make it say something all the time. */
const heard: readonly EventName[] = [
  'GUEST_CREATED',
  'GUEST_DELETED',
  'GUEST_STATE_CHANGED',
  'GUEST_EXITED',
  'GUEST_RESTART_SCHEDULED',
  'OPERATION_CHANGED',
];

/** A daemon that may be made to kill itself at some place; one that does so while it starts is followed by another. */
const startDaemon = async (home: DaemonHome, random: Random, mayCrash: boolean): Promise<RealDaemon> => {
  const crashAt = mayCrash && random.chance(0.4) ? `#${random.integer(1, 150)}` : undefined;
  const begin = async (options: StartOptions): Promise<RealDaemon> => {
    const daemon = await home.start(options);
    await daemon.client.call('events-subscribe', { events: [...heard] });
    return daemon;
  };
  if (crashAt === undefined) return await begin({});
  return await begin({ crashAt }).catch((error: unknown) => {
    if (!isLoss(error) && !String(error).includes('SIGKILL')) throw error;
    counts.starting += 1;
    return begin({});
  });
};

/** Everything that is wrong with what the daemon says and has said. */
const complaints = (daemon: RealDaemon): readonly string[] =>
  daemon
    .log()
    .split('\n')
    .filter((line) =>
      /unexpectedly|without an owner|could not be (recorded|handled)|"level":(60|"fatal")/.test(line),
    );

const openOperations = { states: ['queued', 'running', 'undoing'] } as const;

/** Waits by events until no operation is under way and every guest is in a state that lasts. */
const settle = async (home: DaemonHome, daemon: RealDaemon): Promise<readonly GuestView[]> => {
  using limit = deadline(STUCK_MS);
  const { client } = daemon;
  const events = client.events();
  const iterator = events[Symbol.asyncIterator]();
  let open: readonly OperationView[] = [];
  let guests: readonly GuestView[] = [];
  try {
    for (;;) {
      open = (await client.call('query-operations', { states: [...openOperations.states] })).operations;
      const page = await client.call('query-guests', { limit: 1000 });
      guests = page.guests as readonly GuestView[];
      const resting = guests.every(
        ({ state, restarts, operation }) =>
          SETTLED.includes(state) && restarts.nextAt === undefined && operation === undefined,
      );
      const alive = new Set(await guestPids(home));
      // The end of a process is news, and news may be on its way.
      const upToDate = guests.every(({ process }) => process === undefined || alive.has(process.pid));
      if (open.length === 0 && resting && upToDate) return guests;
      const next = await waitOrAbort(iterator.next(), limit.signal);
      if (next.done === true) throw new Error('the daemon ended');
    }
  } catch (error) {
    if (isLoss(error)) throw error;
    const seen = JSON.stringify({
      open,
      guests: guests.map(({ name, state, process }) => ({ name, state, process })),
    });
    throw new Error(`Not settled: ${seen}\n${daemon.log().slice(-5_000)}`, { cause: error });
  } finally {
    events.close();
  }
};

/** Asks again for what was left without an answer, by the same key, and waits for the end of what was accepted. */
const finishAll = async (
  daemon: RealDaemon,
  asked: readonly Asked[],
  answers: Map<Asked, Outcome | { readonly operation: string }>,
): Promise<{ readonly asked: Asked; readonly outcome: Outcome }[]> =>
  await Promise.all(
    asked.map(async (request) => {
      const answer = answers.get(request) ?? (await ask(daemon.client, request));
      if (answer === undefined) throw new Error('the daemon ended without a reason');
      if ('kind' in answer) return { asked: request, outcome: answer };
      answers.set(request, answer);
      const operation = (await daemon.client.callAny('operation-wait', answer)) as OperationView;
      return { asked: request, outcome: { kind: 'ended', operation } };
    }),
  );

/** A daemon that answers while some of its guests cannot; it tells who they are. */
const unresponsive = async ({ client }: RealDaemon): Promise<number> => {
  const page = await client.call('query-guests', { states: ['unresponsive'], limit: 1000 });
  return page.total;
};

/** Repeats what a daemon did not live to do, with the next one; those that come after the first never crash by plan. */
const withSurvivor = async <T>(
  home: DaemonHome,
  daemon: RealDaemon,
  random: Random,
  work: (daemon: RealDaemon) => Promise<T>,
): Promise<{ readonly daemon: RealDaemon; readonly result: T }> => {
  for (let current = daemon, tries = 1; ; tries += 1) {
    try {
      return { daemon: current, result: await work(current) };
    } catch (error) {
      if (!isLoss(error) || tries > 3) throw error;
      await waitOrAbort(current.ended, AbortSignal.timeout(STUCK_MS));
      counts.place += 1;
      current = await startDaemon(home, random, tries === 1);
    }
  }
};

const playRound = async (
  home: DaemonHome,
  before: RealDaemon,
  herd: Herd,
  inspector: Inspector,
  random: Random,
): Promise<Comparison & { readonly daemon: RealDaemon; readonly wrong: readonly string[] }> => {
  const round = new Round(home, before, random);
  const asked = herd.burst(random.integer(4, 14));
  const answers = await round.serve(asked);
  const { daemon, result } = await withSurvivor(home, before, random, async (current) => {
    counts.unresponsive += await unresponsive(current);
    round.letGo();
    const outcomes = await finishAll(current, asked, answers);
    const guests = await settle(home, current);
    const { ledger, host } = await inspector.compare();
    return { outcomes, guests, ledger, host, pids: await guestPids(home) };
  });
  const wrong = [
    ...herd.judge(result.outcomes),
    ...herd.inspect(result.guests, result.pids),
    ...complaints(daemon),
  ];
  return { daemon, wrong, ledger: result.ledger, host: result.host };
};

const report = (rounds: number, seconds: number): void => {
  figure('random kills: rounds, each with ledger equal to host', rounds);
  figure('random kills: requests', counts.asked);
  figure('random kills: daemons killed at a random moment', counts.daemon);
  figure('random kills: daemons killed at a random place of an operation', counts.place);
  figure('random kills: daemons killed while they started', counts.starting);
  figure('random kills: QEMUs killed', counts.killed);
  figure('random kills: QEMUs stopped', counts.stopped);
  figure('random kills: guests met as unresponsive', counts.unresponsive);
  figure('random kills: seconds', Math.round(seconds));
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'],
  'random kills of daemon and QEMU under thirty guests',
  () => {
    it('loses, leaks and hangs nothing', { timeout: timeoutMs }, async () => {
      const rounds = sized({ short: 10, long: 500 });
      const random = seededRandom();
      const home = await testDaemonHome();
      const herd = new Herd(GUESTS, random);
      let daemon = await startDaemon(home, random, false);
      for (const behaviour of new Set(behaviours)) await importBootSector(daemon, behaviour);
      await daemon.succeed('network-create', { name: 'lan' });
      const inspector = openInspector(home);
      const begun = performance.now();
      const seconds = (): number => (performance.now() - begun) / 1000;
      for (let number = 1; number <= rounds; number += 1) {
        const played = await playRound(home, daemon, herd, inspector, random).catch((error: unknown) => {
          throw new Error(`Round ${number} of seed ${random.seed}`, { cause: error });
        });
        daemon = played.daemon;
        const { wrong, ledger, host } = played;
        expect({ number, seed: random.seed, wrong, host }).toEqual({
          number,
          seed: random.seed,
          wrong: [],
          host: ledger,
        });
        if (number % 10 === 0) progress(`${number} of ${rounds} rounds, ${Math.round(seconds())} s`);
      }
      report(rounds, seconds());
      await daemon.stop();
    });
  },
);

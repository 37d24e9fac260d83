/**
 * Containers that live and die eight at a time, each with a NIC and a program run in it, while the daemon is killed in the
 * middle of it again and again: every life comes to its end, every request has one answer, and nothing is left.
 */
import { expect, it } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
import { beginWithBusybox, container, execIn, tracesOf } from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import type { ChangingCommand, DaemonHome, RealDaemon } from '../harness/real-daemon.ts';
import type { Random } from './random.ts';
import { figure, progress, seededRandom, sized, timeoutMs } from './scale.ts';

const AT_A_TIME = 8;
/** A daemon is killed once in so many things that were asked. */
const ASKED_A_DAEMON = 40;

/** One daemon after another in the same place. What is asked of one that dies is asked of the next. */
class Daemons {
  readonly home: DaemonHome;
  readonly #random: Random;
  readonly #killed = new Set<RealDaemon>();
  #current: Promise<RealDaemon>;
  #left: number;

  constructor(home: DaemonHome, first: RealDaemon, random: Random) {
    this.home = home;
    this.#random = random;
    this.#current = Promise.resolve(first);
    this.#left = this.#lifetime();
  }

  get killed(): number {
    return this.#killed.size;
  }

  get current(): Promise<RealDaemon> {
    return this.#current;
  }

  /** Does it under one daemon from its beginning to its end. */
  async insist<T>(ask: (daemon: RealDaemon) => Promise<T>): Promise<T> {
    for (;;) {
      const daemon = await this.#current;
      try {
        const answer = ask(daemon);
        this.#left -= 1;
        if (this.#left <= 0 && !this.#killed.has(daemon)) this.#replace(daemon);
        return await answer;
      } catch (error) {
        if (!this.#killed.has(daemon)) throw error;
      }
    }
  }

  /** Accepted once, however often it was asked. */
  async succeed<N extends ChangingCommand>(name: N, args: CommandInput<N>, key: string): Promise<void> {
    await this.insist((daemon) =>
      daemon.succeed(name, { ...(args as object), idempotencyKey: key } as typeof args),
    );
  }

  #lifetime(): number {
    return this.#random.integer(ASKED_A_DAEMON / 2, (ASKED_A_DAEMON * 3) / 2);
  }

  #replace(daemon: RealDaemon): void {
    this.#left = this.#lifetime();
    this.#killed.add(daemon);
    this.#current = daemon.kill9().then(() => this.home.start());
  }
}

const live = async (daemons: Daemons, number: number): Promise<void> => {
  const name = `c${number}`;
  const spec = container(name, { nics: [{ network: 'lan' }], stopTimeoutMs: 20_000 });
  await daemons.succeed('guest-create', { ...spec, start: true }, `create-${name}`);
  await daemons.insist(async (daemon) => {
    await daemon.guestWhen(name, ({ agent }) => agent.state === 'connected');
    const said = await execIn(daemons, name)('sh', '-c', `echo ${number} > /root/n; cat /root/n; hostname`);
    expect(said).toMatchObject({ code: 0, stdout: `${number}\n${name}\n` });
  });
  if (number % 3 === 0) await daemons.succeed('guest-pause', { guest: name }, `pause-${name}`);
  if (number % 3 === 1) await daemons.succeed('guest-stop', { guest: name }, `stop-${name}`);
  await daemons.succeed('guest-delete', { guest: name, force: true }, `delete-${name}`);
};

describeWith(
  ['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'],
  'containers under daemons that are killed',
  () => {
    it('live to their end, and leave nothing', { timeout: timeoutMs }, async () => {
      const total = sized({ short: 50, long: 2000 });
      const random = seededRandom();
      const { home, daemon } = await beginWithBusybox();
      await daemon.succeed('network-create', { name: 'lan' });
      const daemons = new Daemons(home, daemon, random);
      let begun = 0;
      const liveOn = async (): Promise<void> => {
        while (begun < total) {
          begun += 1;
          const number = begun;
          await live(daemons, number).catch((error: unknown) => {
            throw new Error(`life ${number} of seed ${random.seed}`, { cause: error });
          });
          if (number % 50 === 0) progress(`${number} of ${total} lives, ${daemons.killed} daemons killed`);
        }
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, liveOn));
      figure('containers: lives', total);
      figure('containers: daemons killed meanwhile', daemons.killed);
      expect(daemons.killed).toBeGreaterThan(0);

      const last = await daemons.current;
      expect((await last.client.call('query-guests', {})).total).toBe(0);
      expect((await last.client.call('query-fsck', {})).differences).toEqual([]);
      await last.succeed('network-delete', { network: 'lan' });
      expect(await tracesOf({ home, daemon: last })).toEqual([]);
      await leaveNothing({ home, daemon: last });
    });
  },
);

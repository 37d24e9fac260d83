/**
 * roostd as users run it: a process of its own, here inside a network namespace that the test made, so that its bridges
 * and rules meet nothing of the host.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';
import { type Client, connect } from '../../cli/client.ts';
import { sessionOutput } from '../../cli/session-output.ts';
import { deferred } from '../../lib/abort.ts';
import type { CommandInput, CommandName } from '../../protocol/commands.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { describeGuests } from './guests-on-failure.ts';
import { noteStandstills } from './standstills.ts';
import { makeDirectory } from './test-directory.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../..');

export type ChangingCommand = Extract<
  CommandName,
  `guest-${string}` | `image-${string}` | `network-${string}` | `template-${string}`
>;

/** A place for daemons to live one after another: directories and a network namespace, removed after the test. */
export interface DaemonHome {
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly namespace: string | undefined;
  /** What a command line begins with that is run in the namespace. */
  readonly entry: readonly string[];
  /** Runs a program in the namespace and gives its standard output. */
  run(argv: readonly string[]): Promise<string>;
  /** Keys of the ledger and of the host; only while no daemon runs here. */
  compare(): Promise<{ readonly ledger: readonly string[]; readonly host: readonly string[] }>;
  start(options?: StartOptions): Promise<RealDaemon>;
}

export interface StartOptions {
  /** `kind/step/moment` at which the daemon kills itself, or `#N` for the N-th place that any operation comes to. */
  readonly crashAt?: string;
  /** `kind/step/moment` at which an operation fails, once. */
  readonly failAt?: string;
  /** File that gets a line for each place that an operation comes to. */
  readonly placesPath?: string;
  /** What roots of containers lie on, whatever the kernel can do. */
  readonly lower?: 'image' | 'tree';
  /** Over a pretended host, see test/fault/roostd-on-fakes.entry.ts. */
  readonly onFakes?: { readonly keepingPath: string; readonly imagePath?: string };
  readonly args?: readonly string[];
  /** A program, with its arguments, that sets a place up and then executes the daemon's own argv, which follows. */
  readonly within?: readonly string[];
}

export interface RealDaemon {
  readonly pid: number;
  readonly client: Client;
  /** Resolves when the process is gone, with how it ended. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** What it wrote so far. */
  log(): string;
  /** Resolves once it has written that. */
  logged(text: string): Promise<void>;
  /** Calls a changing command and gives the ended operation. */
  change<N extends ChangingCommand>(name: N, args: CommandInput<N>): Promise<OperationView>;
  /** The same, and fails unless it succeeded. Gives the id of the object. */
  succeed<N extends ChangingCommand>(name: N, args: CommandInput<N>): Promise<string>;
  guest(name: string): Promise<GuestView>;
  /** The guest once the condition holds; looked at again after each event. */
  guestWhen(name: string, condition: (guest: GuestView) => boolean): Promise<GuestView>;
  stop(): Promise<void>;
  kill9(): Promise<void>;
}

const untilSaid = async (child: ChildProcess, said: () => string, text: string): Promise<void> => {
  const { promise, resolve, reject } = deferred<void>();
  const look = (): void => {
    if (said().includes(text)) resolve();
  };
  const fail = (code: number | null, signal: NodeJS.Signals | null): void =>
    reject(new Error(`roostd ended with ${code ?? signal}:\n${said()}`));
  child.stdout?.on('data', look);
  child.once('exit', fail);
  look();
  if (child.exitCode !== null || child.signalCode !== null) fail(child.exitCode, child.signalCode);
  await promise.finally(() => {
    child.stdout?.off('data', look);
    child.off('exit', fail);
  });
};

/** Which of the programs, and what it is told besides its arguments. */
const programOf = ({
  onFakes,
  crashAt,
  failAt,
  placesPath,
  lower,
}: StartOptions): readonly [string, NodeJS.ProcessEnv] => {
  if (onFakes !== undefined)
    return [
      'dist/test/roostd-on-fakes.js',
      { ROOST_TEST_KEEPING: onFakes.keepingPath, ROOST_TEST_IMAGE: onFakes.imagePath },
    ];
  if ([crashAt, failAt, placesPath, lower].every((each) => each === undefined)) return ['bin/roostd', {}];
  return [
    'dist/test/roostd-with-faults.js',
    {
      ROOST_TEST_CRASH: crashAt,
      ROOST_TEST_FAIL: failAt,
      ROOST_TEST_PLACES: placesPath,
      ROOST_TEST_LOWER: lower,
    },
  ];
};

const spawnDaemon = (home: DaemonHome, options: StartOptions): ChildProcess => {
  const [program, env] = programOf(options);
  const argv = [
    ...(options.within ?? []),
    process.execPath,
    join(root, program),
    '--state-dir',
    home.stateDirectory,
    '--run-dir',
    home.runDirectory,
    ...(options.args ?? []),
  ];
  const [file = '', ...args] = [...home.entry, ...argv];
  return spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
};

const succeeded = (operation: OperationView): OperationView => {
  if (operation.state === 'succeeded') return operation;
  throw new Error(
    `${operation.kind} of ${operation.subject.name} ${operation.state}: ${JSON.stringify(operation.error)}`,
  );
};

const startDaemon = async (home: DaemonHome, options: StartOptions): Promise<RealDaemon> => {
  const child = spawnDaemon(home, options);
  let said = '';
  const listen = (chunk: Buffer): void => {
    said += chunk.toString('utf8');
  };
  child.stdout?.on('data', listen);
  child.stderr?.on('data', listen);
  const ended = once(child, 'exit').then(([code, signal]: (number | NodeJS.Signals | null)[]) => ({
    code: typeof code === 'number' ? code : null,
    signal: typeof signal === 'string' ? signal : null,
  }));
  onTestFinished(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await ended;
    noteStandstills(said);
  });
  await untilSaid(child, () => said, '"msg":"ready"');
  const socketPath = join(home.runDirectory, 'roost.sock');
  const signal = new AbortController().signal;
  const client = await connect({ socketPath, signal });
  const change: RealDaemon['change'] = async (name, args) => {
    const { operation } = (await client.callAny(name, args as Record<string, unknown>)) as {
      operation: string;
    };
    return (await client.callAny('operation-wait', { operation })) as OperationView;
  };
  const guest = (name: string): Promise<GuestView> => client.call('query-guest', { guest: name });
  return {
    pid: child.pid ?? 0,
    client,
    ended,
    log: () => said,
    logged: (text) => untilSaid(child, () => said, text),
    change,
    succeed: async (name, args) => succeeded(await change(name, args)).subject.id,
    guest,
    guestWhen: async (name, condition) => {
      const watcher = await connect({ socketPath, signal });
      const events = watcher.events();
      try {
        const before = await guest(name);
        if (condition(before)) return before;
        for await (const _event of events) {
          const now = await guest(name);
          if (condition(now)) return now;
        }
        throw new Error(`The daemon ended while a guest was waited for:\n${said}`);
      } finally {
        watcher.close();
      }
    },
    stop: async () => {
      client.close();
      child.kill('SIGTERM');
      await ended;
    },
    kill9: async () => {
      client.close();
      child.kill('SIGKILL');
      await ended;
    },
  };
};

export interface HomeOptions {
  /** False for a daemon that the test itself reaches by loopback; it may have no networks then. True by default. */
  readonly ownNamespace?: boolean;
  /** Its daemons run over a pretended host: nothing real is to be made or ended for what they leave. */
  readonly onFakes?: boolean;
  /** Whether its daemons see the control groups of the host. False by default, as `ip netns exec` has it. */
  readonly hasControlGroups?: boolean;
}

const entryOf = (namespace: string | undefined, hasControlGroups = false): readonly string[] => {
  if (namespace === undefined) return [];
  return hasControlGroups
    ? ['nsenter', `--net=/run/netns/${namespace}`, '--']
    : ['ip', 'netns', 'exec', namespace];
};

/** Directories and, as root, a network namespace. To be called inside a test or a hook that removes it. */
export const makeDaemonHome = async (
  options: HomeOptions = {},
): Promise<DaemonHome & { remove(): Promise<void> }> => {
  const directory = await makeDirectory('home');
  const stateDirectory = join(directory, 's');
  const runDirectory = join(directory, 'r');
  await mkdir(stateDirectory);
  const privileged = process.getuid?.() === 0;
  const separate = privileged && options.ownNamespace !== false;
  const namespace = separate ? `roost-test-${randomBytes(4).toString('hex')}` : undefined;
  if (namespace !== undefined) {
    await run('ip', ['netns', 'add', namespace]);
    await run('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
  }
  const entry = entryOf(namespace, options.hasControlGroups);
  const inside = async (argv: readonly string[]): Promise<string> => {
    const [file = '', ...args] = [...entry, ...argv];
    return (await run(file, args, { maxBuffer: 64 * 1024 * 1024 })).stdout;
  };
  const home: DaemonHome = {
    stateDirectory,
    runDirectory,
    namespace,
    entry,
    run: inside,
    compare: async () => {
      const program = join(root, 'dist/test/inspect-host.js');
      const text = await inside([process.execPath, program, stateDirectory, runDirectory]);
      return JSON.parse(text) as { ledger: string[]; host: string[] };
    },
    start: (options = {}) => startDaemon(home, options),
  };
  return {
    ...home,
    remove: async () => {
      if (namespace !== undefined) await run('ip', ['netns', 'del', namespace]);
      const { rm } = await import('node:fs/promises');
      await rm(directory, { recursive: true, force: true });
    },
  };
};

/**
 * A home for the running test alone. What guests and servers are left in it are ended by a last daemon, which tells of
 * them first where the test has failed.
 */
export const testDaemonHome = async (options: HomeOptions = {}): Promise<DaemonHome> => {
  const home = await makeDaemonHome(options);
  onTestFinished(async ({ task }) => {
    if (options.onFakes !== true) {
      const daemon = await home.start();
      if (task.result?.state === 'fail')
        process.stderr.write(`${task.name}:\n${await describeGuests(daemon)}\n`);
      await removeEverything(daemon);
      await daemon.stop();
    }
    await home.remove();
  });
  return home;
};

/** In an order in which they can be deleted: templates last, the newest before the older ones, because forks lie on them. */
export const guestsInOrderOfDeletion = async ({ client }: RealDaemon): Promise<readonly string[]> => {
  const { guests } = await client.call('query-guests', { limit: 100_000, fields: ['name', 'template'] });
  const age = ({ template }: (typeof guests)[number]): number => template?.madeAt ?? Infinity;
  const inOrder = guests.toSorted((one, other) => (age(one) === age(other) ? 0 : age(other) - age(one)));
  return inOrder.map(({ name = '' }) => name);
};

/** Deletes every guest, image and network of a daemon. */
export const removeEverything = async (daemon: RealDaemon): Promise<void> => {
  for (const guest of await guestsInOrderOfDeletion(daemon)) {
    await daemon.change('guest-update', { guest, deleteProtection: false });
    await daemon.succeed('guest-delete', { guest, force: true });
  }
  const { networks } = await daemon.client.call('query-networks', {});
  for (const network of networks) await daemon.succeed('network-delete', { network: network.name });
  const { images } = await daemon.client.call('query-images', {});
  for (const image of images) await daemon.succeed('image-delete', { image: image.id });
};

/** Reads a guest's console, from the beginning of its log, until the text satisfies the condition; gives the text. */
export const waitForConsole = async (
  daemon: RealDaemon,
  guest: string,
  condition: (text: string) => boolean,
): Promise<string> => {
  const { runDirectory } = await daemon.client.call('query-daemon', {});
  const socketPath = join(runDirectory, 'roost.sock');
  const client = await connect({ socketPath, signal: new AbortController().signal });
  const console = await client.attach('guest-console', { guest, framed: true, replayBytes: 65_536 });
  let text = '';
  try {
    for await (const chunk of sessionOutput(console)) {
      text += String(chunk);
      if (condition(text)) return text;
    }
    throw new Error(`The console of ${guest} closed after:\n${text}`);
  } finally {
    client.close();
  }
};

/**
 * A roostd of the bench's own: its directories are thrown away with it, and nothing of it reaches an installed one.
 * Whoever starts it has made sure that no process survives (see main.ts), so closing it only has to be quick.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Client, connect } from '../cli/client.ts';
import type { CommandInput, CommandName } from '../protocol/commands.ts';
import type { OperationView } from '../protocol/operation.ts';
import type { TakeOptions } from './measure.ts';

const root = join(import.meta.dirname, '..');

/** As it is before a test harness gives this process a directory of its own, which goes with what asked for it. */
const temporary = tmpdir();

export interface InstanceOptions extends TakeOptions {
  /** Where the daemon leaves a profile of its processor time when it ends. */
  readonly profileDirectory?: string;
  /** Forks that may wait for somebody, where there are to be any. */
  readonly waiting?: number;
}

/** Milliseconds from the signal that ends the daemon. */
export interface RestartTimes {
  /** Until the next one has answered a request. */
  readonly answeredMs: number;
  readonly doneMs: number;
}

export interface Instance {
  readonly socketPath: string;
  /** For whatever the bench itself wants to put down. */
  readonly scratchDirectory: string;
  /** After a restart another one. */
  readonly client: Client;
  /** A connection more, for what must not wait for others. */
  connect(): Promise<Client>;
  /** Calls a changing command and waits until its operation has succeeded. */
  readonly succeed: <N extends CommandName>(name: N, args: CommandInput<N>) => Promise<void>;
  /** Waits until an accepted operation has succeeded. */
  finished(operation: string): Promise<void>;
  /** Ends the daemon and starts it anew, with guests that run on; gives how long it took, in milliseconds. */
  restart(until: (client: Client) => Promise<void>): Promise<RestartTimes>;
  /** Ends every guest, removes every network, ends the daemon, and takes its directories away. */
  close(): Promise<void>;
}

export const startInstance = async (options: InstanceOptions): Promise<Instance> => {
  const { signal } = options;
  const directory = await mkdtemp(join(temporary, 'roost-bench-'));
  // As an installed daemon's are: the root of a container, who is nobody here, has to come by.
  await chmod(directory, 0o711);
  const [stateDirectory, runDirectory, scratchDirectory] = ['s', 'r', 'x'].map((name) =>
    join(directory, name),
  ) as [string, string, string];
  for (const path of [stateDirectory, runDirectory, scratchDirectory]) await mkdir(path);
  // What an installed daemon was told is nothing to this one.
  const configPath = join(directory, 'roostd.yaml');
  await writeFile(configPath, JSON.stringify({ templates: { waiting: options.waiting ?? 0 } }));

  const profiling =
    options.profileDirectory === undefined
      ? []
      : ['--cpu-prof', `--cpu-prof-dir=${options.profileDirectory}`, '--cpu-prof-interval=200'];
  const socketPath = join(runDirectory, 'roost.sock');
  const argv = [
    ...profiling,
    join(root, 'bin/roostd'),
    '--config',
    configPath,
    '--state-dir',
    stateDirectory,
    '--run-dir',
    runDirectory,
  ];
  let daemon: Daemon | undefined;
  const launch = async (words: DaemonWords): Promise<Client> => {
    daemon = await launchDaemon(argv, words, signal);
    return await connect({ socketPath, signal });
  };
  const discard = async (): Promise<void> => {
    await daemon?.end();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const client = await launch('ready');
    const relaunch = async (): Promise<Client> => {
      await daemon?.end();
      return await launch('listening');
    };
    return instanceOf(client, { socketPath, scratchDirectory, signal, relaunch, discard });
  } catch (error) {
    await discard();
    throw error;
  }
};

interface Daemon {
  end(): Promise<void>;
}

/** It answers when it listens; when it is ready it has looked at every guest. */
type DaemonWords = 'listening' | 'ready';

/** Resolves when it has said that. */
const launchDaemon = async (
  argv: readonly string[],
  words: DaemonWords,
  signal: AbortSignal,
): Promise<Daemon> => {
  const child = spawn(
    process.execPath,
    argv,
    // In a process group of its own: an interrupt at the terminal is for the bench, which still needs it to tidy up.
    { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/', detached: true },
  );
  const ended = once(child, 'exit');
  const end = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await ended;
  };
  try {
    await Promise.race([
      said(child.stdout, `"msg":"${words}"`, signal),
      ended.then(() => Promise.reject(new Error(`roostd ended before it was ${words}`))),
    ]);
    return { end };
  } catch (error) {
    await end();
    throw error;
  }
};

interface Parts {
  readonly socketPath: string;
  readonly scratchDirectory: string;
  readonly signal: AbortSignal;
  /** Ends the daemon, starts it anew, and gives a connection to it. */
  readonly relaunch: () => Promise<Client>;
  readonly discard: () => Promise<void>;
}

const instanceOf = (first: Client, parts: Parts): Instance => {
  const { socketPath, scratchDirectory, signal, relaunch, discard } = parts;
  let client = first;
  const finished = async (operation: string): Promise<void> => {
    const ended = (await client.callAny('operation-wait', { operation }, { signal })) as OperationView;
    if (ended.state === 'succeeded') return;
    throw new Error(`${ended.kind} of ${ended.subject.name} ${ended.state}: ${ended.error?.desc ?? ''}`);
  };
  const succeed: Instance['succeed'] = async (name, args) => {
    const accepted = await client.callAny(name, args, { signal });
    await finished((accepted as { operation: string }).operation);
  };
  return {
    socketPath,
    scratchDirectory,
    get client() {
      return client;
    },
    connect: () => connect({ socketPath, signal }),
    finished,
    succeed,
    restart: async (until) => {
      client.close();
      const begun = performance.now();
      client = await relaunch();
      await client.call('query-version', {});
      const answeredMs = performance.now() - begun;
      await until(client);
      return { answeredMs, doneMs: performance.now() - begun };
    },
    close: async () => {
      try {
        await empty(client);
      } finally {
        client.close();
        await discard();
      }
    },
  };
};

/** Guests go by force and stay defined: with the directories they go in one piece. Networks must have no users. */
const empty = async (client: Client): Promise<void> => {
  const change = async (name: CommandName, args: Record<string, unknown>): Promise<void> => {
    const { operation } = (await client.callAny(name, args)) as { operation: string };
    await client.callAny('operation-wait', { operation });
  };
  const { networks } = await client.call('query-networks', {});
  const users = new Set(networks.flatMap((network) => network.usedBy));
  const { guests } = await client.call('query-guests', { fields: ['name', 'state'], limit: 100_000 });
  for (const { name = '', state } of guests) {
    if (users.has(name)) await change('guest-delete', { guest: name, force: true });
    else if (state !== 'stopped') await change('guest-stop', { guest: name, force: true });
  }
  for (const network of networks) await change('network-delete', { network: network.name });
};

/** Resolves when the stream has said the words, and reads on for ever, so that the other end never waits. */
const said = (stream: NodeJS.ReadableStream, words: string, signal: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    let heard = '';
    let done = false;
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    stream.on('data', (chunk: Buffer) => {
      if (done) return;
      heard += chunk.toString('utf8');
      done = heard.includes(words);
      if (done) resolve();
    });
  });

/**
 * Starts QEMU as a person would write it in Node: spawn with the descriptors that the command line speaks of, then the
 * monitor: greeting, `qmp_capabilities`, `cont`. What stands around it is as in the driver, and made before the time
 * begins: listening sockets, lock, logs, taps.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { enslaveLink, listenUnix, lockFile, openTap, setLinkUp } from '../native/index.ts';
import type { Answer, Request, StartByHand } from './by-hand.ts';

type Message = Readonly<Record<string, unknown>>;

/** In the order of the descriptors' numbers, see drivers/qemu/launch-args.ts. */
const prepare = ({ directory, taps }: StartByHand): readonly number[] => {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = (name: string): string => join(directory, name);
  writeFileSync(path('black-box.input'), '{"execute":"qmp_capabilities"}\n');
  const lock = lockFile(path('process.lock'));
  if (lock === 'held') throw new Error('an earlier process still holds the lock');
  return [
    openSync(path('black-box.input'), 'r'),
    openSync(path('events.log'), 'a'),
    openSync(path('qemu.log'), 'a'),
    lock,
    listenUnix(path('qmp.sock'), { mode: 0o600, backlog: 1 }),
    listenUnix(path('console.sock'), { mode: 0o600, backlog: 1 }),
    openSync(path('console.log'), 'a'),
    ...taps.map(({ link, bridge }) => {
      const tap = openTap(link);
      enslaveLink(link, bridge);
      setLinkUp(link);
      return tap;
    }),
  ];
};

const isAnswer = (message: Message): boolean => 'return' in message || 'error' in message;

/** Greeting, capabilities, cont; resolves when the last is answered. QEMU ends each message with a line. */
const letRun = (socket: Socket): Promise<void> =>
  new Promise((resolve, reject) => {
    let rest = '';
    const send = (execute: string): unknown => socket.write(`{"execute":"${execute}"}\n`);
    const steps = [() => send('qmp_capabilities'), () => send('cont'), resolve];
    socket.on('error', reject);
    socket.on('data', (chunk) => {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const message = JSON.parse(line) as Message;
        if ('error' in message) reject(new Error(line));
        if ('QMP' in message || isAnswer(message)) steps.shift()?.();
      }
    });
  });

/** A guest that was started by hand, until `end`. */
class Guest {
  readonly #request: StartByHand;
  readonly #descriptors: readonly number[];
  #child: ChildProcess | undefined;
  #gone: Promise<unknown> = Promise.resolve();
  #socket: Socket | undefined;

  constructor(request: StartByHand) {
    this.#request = request;
    this.#descriptors = prepare(request);
  }

  /** Milliseconds from the spawn until `cont` is answered. */
  async start(): Promise<number> {
    const { argv, directory, workingDirectory } = this.#request;
    const [file = '', ...args] = argv;
    const begun = performance.now();
    const child = spawn(file, args, {
      cwd: workingDirectory,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' },
      stdio: [...this.#descriptors],
      detached: true,
    });
    this.#child = child;
    this.#gone = once(child, 'exit');
    this.#socket = connect(join(directory, 'qmp.sock'));
    await Promise.race([
      letRun(this.#socket),
      this.#gone.then(() => Promise.reject(new Error(readFileSync(join(directory, 'qemu.log'), 'utf8')))),
    ]);
    return performance.now() - begun;
  }

  async end(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#gone;
    this.#socket?.destroy();
    for (const descriptor of this.#descriptors) closeSync(descriptor);
    rmSync(this.#request.directory, { recursive: true, force: true });
  }
}

let guest: Guest | undefined;

const end = async (): Promise<void> => {
  await guest?.end();
  guest = undefined;
};

const carryOut = async (request: Request): Promise<number> => {
  if (request.kind === 'end') {
    await end();
    return 0;
  }
  guest = new Guest(request.start);
  try {
    return await guest.start();
  } catch (error) {
    await end();
    throw error;
  }
};

process.on('message', (request: Request) => {
  carryOut(request).then(
    (ms) => process.send?.({ ms } satisfies Answer),
    (error: unknown) => process.send?.({ failure: String(error) } satisfies Answer),
  );
});
process.on('disconnect', () => void end());

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
import type { Answer, StartByHand } from './by-hand.ts';

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

const take = async (request: StartByHand): Promise<number> => {
  const descriptors = prepare(request);
  const [file = '', ...args] = request.argv;
  let child: ChildProcess | undefined;
  let gone: Promise<unknown> = Promise.resolve();
  let socket: Socket | undefined;
  try {
    const begun = performance.now();
    child = spawn(file, args, {
      cwd: request.workingDirectory,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' },
      stdio: [...descriptors],
      detached: true,
    });
    gone = once(child, 'exit');
    socket = connect(join(request.directory, 'qmp.sock'));
    await Promise.race([
      letRun(socket),
      gone.then(() => Promise.reject(new Error(readFileSync(join(request.directory, 'qemu.log'), 'utf8')))),
    ]);
    return performance.now() - begun;
  } finally {
    child?.kill('SIGKILL');
    await gone;
    socket?.destroy();
    for (const descriptor of descriptors) closeSync(descriptor);
    rmSync(request.directory, { recursive: true, force: true });
  }
};

process.on('message', (request: StartByHand) => {
  take(request).then(
    (ms) => process.send?.({ ms } satisfies Answer),
    (error: unknown) => process.send?.({ failure: String(error) } satisfies Answer),
  );
});

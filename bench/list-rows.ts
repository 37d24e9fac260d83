/**
 * A host with 1,000 stopped guests and 20 running ones: how fast they are made and listed, over the socket and by the
 * command line, and what the daemon needs to keep them.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { CommandName } from '../protocol/commands.ts';
import { MEBIBYTE } from '../protocol/types.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, figureOf, type SampleLimits, type Sampler, takeFigure } from './measure.ts';
import { importIdleKernel, kernelName } from './start-rows.ts';

const STOPPED = 1000;
const RUNNING = 20;
/** Requests for new guests that are on their way at a time. */
export const IN_FLIGHT = 16;
export const SMALL_MEMORY_BYTES = 16 * MEBIBYTE;
const NEWLINE = 0x0a;

const listLimits: SampleLimits = { warmUps: 5, samples: 50, budgetMs: 15_000 };
const cliLimits: SampleLimits = { warmUps: 2, samples: 20, budgetMs: 20_000 };

/** All of them, because one set of guests serves them all. */
export const listRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    await importIdleKernel(instance);
    const begun = performance.now();
    await createAll(instance, STOPPED, 'stopped', false);
    const perSecond = (STOPPED * 1000) / (performance.now() - begun);
    await createAll(instance, RUNNING, 'running', true);
    const list = await takeFigure(
      'list-1020',
      'ms',
      { roost: await listSampler(instance, STOPPED + RUNNING) },
      listLimits,
      options,
    );
    const cli = await takeFigure(
      'cli-ls-1020',
      'ms',
      {
        roost: programSampler(roostArgv(instance, 'ls'), STOPPED + RUNNING),
        peer: { name: 'node -e 0', sample: programSampler([process.execPath, '-e', '0'], 0) },
      },
      cliLimits,
      options,
    );
    const { memoryBytes } = await instance.client.call('query-daemon', {});
    return [
      figureOf('create-1000', 'guests/s', [perSecond]),
      list,
      cli,
      figureOf('daemon-memory-1020', 'MiB', [memoryBytes / MEBIBYTE]),
    ];
  } finally {
    await instance.close();
  }
};

/** A command line of an instance, as a shell runs it. */
export const roostArgv = ({ socketPath }: Instance, ...args: readonly string[]): readonly string[] => [
  join(import.meta.dirname, '../bin/roost'),
  '--socket',
  socketPath,
  ...args,
];

/** Makes guests without disks; resolves when every one of them is there. */
export const createAll = async (
  instance: Instance,
  count: number,
  prefix: string,
  start: boolean,
): Promise<void> =>
  // Those that start share the processors with what QEMU does, so they come one after the other.
  await forEach(count, start ? 1 : IN_FLIGHT, async (index) => {
    const name = `${prefix}-${String(index).padStart(4, '0')}`;
    await instance.succeed('guest-create', {
      name,
      memoryBytes: SMALL_MEMORY_BYTES,
      boot: { kind: 'kernel', kernel: kernelName },
      start,
    });
  });

/** Does something for each number below `count`, so many of them at a time. */
export const forEach = async (
  count: number,
  atATime: number,
  act: (index: number) => Promise<void>,
): Promise<void> => {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await act(next - 1);
    }
  };
  await Promise.all(Array.from({ length: atATime }, worker));
};

export const listSampler = async (
  instance: Instance,
  guests: number,
  fields?: readonly string[],
): Promise<Sampler> =>
  await querySampler(
    instance,
    'query-guests',
    { limit: 100_000, ...(fields === undefined ? {} : { fields }) },
    (answer) => expectCount((answer as { guests: unknown[] }).guests.length, guests),
  );

/** From the request until the last byte of the reply; what a client makes of it is its own time. */
export const querySampler = async (
  instance: Instance,
  command: CommandName,
  args: Readonly<Record<string, unknown>>,
  check: (answer: unknown) => void,
): Promise<Sampler> => {
  const request = JSON.stringify({ execute: command, arguments: args });
  const socket = connect(instance.socketPath);
  await replyOf(socket);
  for (const request of ['{"execute":"qmp_capabilities"}', silence]) {
    socket.write(request);
    await replyOf(socket);
  }
  return async () => {
    const begun = performance.now();
    socket.write(request);
    const reply = await replyOf(socket);
    const ms = performance.now() - begun;
    check((JSON.parse(reply) as { return: unknown }).return);
    return ms;
  };
};

export const silence = '{"execute":"events-subscribe","arguments":{"events":[]}}';

/** The next line from a socket on which nothing else comes. */
export const replyOf = (socket: Socket): Promise<string> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const done = (): void => {
      socket.off('data', hear);
      socket.off('error', reject);
    };
    const hear = (chunk: Buffer): void => {
      chunks.push(chunk);
      if (chunk.at(-1) !== NEWLINE) return;
      done();
      resolve(Buffer.concat(chunks).toString('utf8'));
    };
    socket.on('data', hear);
    socket.once('error', reject);
  });

/** From the spawn of a program until it is gone and its output is read, which names so many guests. */
export const programSampler =
  ([program = '', ...args]: readonly string[], guests: number): Sampler =>
  async () => {
    const begun = performance.now();
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const [code] = (await once(child, 'close')) as [number | null];
    const ms = performance.now() - begun;
    if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}`);
    if (guests > 0) {
      const lines = Buffer.concat(chunks).toString('utf8').split('\n');
      expectCount(lines.filter((line) => /\b(stopped|running)-\d{4,}\b/.test(line)).length, guests);
    }
    return ms;
  };

export const expectCount = (found: number, wanted: number): void => {
  if (found !== wanted) throw new Error(`${found} guests were listed instead of ${wanted}`);
};

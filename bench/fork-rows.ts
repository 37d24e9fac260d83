/**
 * A guest made of a template, from `guest-fork` on the socket until it is seen to run, and until its program runs; against
 * QEMU spawned by hand (the floor), and against the same guest booted.
 */
import { readFile, rm } from 'node:fs/promises';
import type { Client } from '../cli/client.ts';
import type { EventView } from '../protocol/events.ts';
import { MEBIBYTE } from '../protocol/types.ts';
import { type MicrovmImages, makeMicrovmImages } from '../test/harness/microvm-home.ts';
import { openByHand } from './by-hand.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, figureOf, type SampleLimits, type Sides, takeFigure } from './measure.ts';
import { byHandRequest, importIdleKernel, kernelName, PEER } from './start-rows.ts';
import { waitingIn } from './waiting-forks.ts';

const limits: SampleLimits = { warmUps: 3, samples: 30, budgetMs: 40_000 };
const bootLimits: SampleLimits = { warmUps: 1, samples: 8, budgetMs: 60_000 };
const MEMORY_BYTES = 256 * MEBIBYTE;
type Peer = NonNullable<Sides['peer']>;

const FLOOR = 'bare';
const TEMPLATE = 'template';
const FORK = 'fork';
const BOOT = 'boot';
/** Forks, and boots, that are there at once when their memory is looked at. */
const TOGETHER = 50;

export const forkRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const images = await makeMicrovmImages();
  try {
    const forked = await withInstance(options, images, (instance, peer) => forks(instance, peer, options));
    const waited = await withInstance({ ...options, waiting: 1 }, images, (instance, peer) =>
      waitingForks(instance, peer, options),
    );
    return [...forked, ...waited];
  } finally {
    await rm(images.directory, { recursive: true, force: true });
  }
};

/** The floor is measured beside it. */
const withInstance = async (
  options: InstanceOptions,
  images: MicrovmImages,
  measure: (instance: Instance, peer: Peer) => Promise<readonly Figure[]>,
): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  const byHand = await openByHand(instance.scratchDirectory);
  try {
    await images.importInto(instance);
    await prepare(instance);
    const request = await byHandRequest(instance, FLOOR);
    const sample = async (): Promise<number> => {
      const ms = await byHand.start(request);
      await byHand.end();
      return ms;
    };
    return await measure(instance, { name: PEER, sample });
  } finally {
    await byHand.close();
    await instance.close();
  }
};

const forks = async (
  instance: Instance,
  peer: Peer,
  options: InstanceOptions,
): Promise<readonly Figure[]> => {
  const client = await watcherOf(instance);
  const booted = { name: 'the same guest, booted by Roost', sample: () => untilProgram(instance, BOOT) };
  const running = { roost: () => untilRunning(instance, client), peer };
  return [
    await takeFigure('fork-running', 'ms', running, limits, options),
    await takeFigure(
      'fork-ready',
      'ms',
      { roost: () => untilReady(instance, client), peer },
      limits,
      options,
    ),
    await takeFigure(
      'fork-program',
      'ms',
      { roost: () => untilProgram(instance, FORK), peer },
      limits,
      options,
    ),
    await takeFigure(
      'fork-boot',
      'ms',
      { roost: () => untilProgram(instance, FORK), peer: booted },
      bootLimits,
      options,
    ),
    ...(options.short ? [] : [await forkMemory(instance)]),
  ];
};

/** One waits whenever it begins, and another before anything else is measured. */
const waitingForks = async (
  instance: Instance,
  peer: Peer,
  options: InstanceOptions,
): Promise<readonly Figure[]> => {
  const client = await watcherOf(instance);
  const refilled = await waitingIn(instance, TEMPLATE);
  await untilProgram(instance, FORK);
  await refilled();
  const after = (sample: () => Promise<number>) => async (): Promise<number> => {
    const ms = await sample();
    await refilled();
    return ms;
  };
  const running = { roost: after(() => untilRunning(instance, client)), peer };
  const ready = { roost: after(() => untilReady(instance, client)), peer };
  const program = { roost: after(() => untilProgram(instance, FORK)), peer };
  return [
    await takeFigure('waiting-running', 'ms', running, limits, options),
    await takeFigure('waiting-ready', 'ms', ready, limits, options),
    await takeFigure('waiting-program', 'ms', program, limits, options),
  ];
};

const watcherOf = async (instance: Instance): Promise<Client> => {
  const client = await instance.connect();
  await client.call('events-subscribe', { events: ['GUEST_STATE_CHANGED', 'GUEST_READY'] });
  return client;
};

/** Proportional set size of each of so many, all of which are there at once. */
const forkMemory = async (instance: Instance): Promise<Figure> => {
  const forks = Array.from({ length: TOGETHER }, (_, index) => `${FORK}-${index}`);
  const forked = await shareOf(instance, forks, (name) =>
    instance.succeed('guest-fork', { template: TEMPLATE, name }),
  );
  const boots = Array.from({ length: TOGETHER }, (_, index) => `${BOOT}-${index}`);
  const booted = await shareOf(instance, boots, (name) => boot(instance, name));
  return figureOf('fork-memory', 'MiB', forked, { name: 'the same guest, booted by Roost', values: booted });
};

/** Mebibytes of each, which are removed afterwards. */
const shareOf = async (
  instance: Instance,
  names: readonly string[],
  make: (name: string) => Promise<unknown>,
): Promise<readonly number[]> => {
  for (const name of names) await make(name);
  const sizes: number[] = [];
  for (const name of names) {
    const { process } = await instance.client.call('query-guest', { guest: name });
    const rollup = await readFile(`/proc/${process?.pid ?? 0}/smaps_rollup`, 'utf8');
    sizes.push(Number(/^Pss: +(\d+) kB/m.exec(rollup)?.[1]) / 1024);
  }
  await Promise.all(names.map((name) => remove(instance, name)));
  return sizes;
};

/** Asks for a little more memory, so that no template has it. */
const boot = async (instance: Instance, name: string): Promise<void> =>
  await instance.succeed('guest-create', {
    name,
    machine: 'microvm',
    memoryBytes: MEMORY_BYTES + MEBIBYTE,
    program: { image: 'box', command: ['sleep', '100000'] },
    start: true,
  });

const prepare = async (instance: Instance): Promise<void> => {
  await importIdleKernel(instance);
  await instance.succeed('guest-create', {
    name: FLOOR,
    memoryBytes: MEMORY_BYTES,
    agent: { enabled: false },
    boot: { kind: 'kernel', kernel: kernelName },
  });
  await instance.succeed('guest-create', {
    name: TEMPLATE,
    machine: 'microvm',
    memoryBytes: MEMORY_BYTES,
    program: { image: 'box', command: ['sleep', '100000'] },
  });
  await instance.succeed('template-create', { guest: TEMPLATE });
};

const remove = async (instance: Instance, guest: string): Promise<void> =>
  await instance.succeed('guest-delete', { guest, force: true });

const untilRunning = (instance: Instance, client: Client): Promise<number> =>
  untilTold(instance, client, ({ data }) => data['to'] === 'running');

const untilReady = (instance: Instance, client: Client): Promise<number> =>
  untilTold(instance, client, ({ event }) => event === 'GUEST_READY');

const untilTold = async (
  instance: Instance,
  client: Client,
  isIt: (told: EventView) => boolean,
): Promise<number> => {
  const events = client.events();
  const begun = performance.now();
  const accepted = client.call('guest-fork', { template: TEMPLATE, name: FORK });
  let ms = Number.NaN;
  for await (const told of events) {
    const { data } = told;
    if (data['name'] !== FORK) continue;
    ms = performance.now() - begun;
    if (isIt(told)) break;
    if (data['to'] === 'failed') throw new Error(`the fork failed: ${JSON.stringify(data)}`);
  }
  await instance.finished((await accepted).operation);
  await remove(instance, FORK);
  return ms;
};

const untilProgram = async (instance: Instance, name: typeof FORK | typeof BOOT): Promise<number> => {
  const begun = performance.now();
  if (name === FORK) await instance.succeed('guest-fork', { template: TEMPLATE, name });
  else await boot(instance, name);
  const ms = performance.now() - begun;
  await remove(instance, name);
  return ms;
};

/** The daemon restarted under guests that run on: until it answers, and until it has taken all of them back. */
import type { Client } from '../cli/client.ts';
import type { InstanceOptions } from './instance.ts';
import { LibvirtClient } from './libvirt/client.ts';
import { type Sides, withLibvirtd } from './libvirt-rows.ts';
import { SMALL_MEMORY_BYTES } from './list-rows.ts';
import {
  type Figure,
  figureOf,
  growthOf,
  type Point,
  type SampleLimits,
  type Sampler,
  type TakeOptions,
  takeFigure,
} from './measure.ts';
import { kernelName } from './start-rows.ts';

const WARM_UPS = 1;
const limits: SampleLimits = { warmUps: WARM_UPS, samples: 7, budgetMs: 40_000 };
const SIZES = [10, 50, 200] as const;
/** virDomainState */
const PAUSED = 3;

const nameOf = (index: number): string => `paused-${String(index).padStart(4, '0')}`;

/** Paused, so that they weigh little. */
const startMore = async ({ instance, libvirt, xmlOf }: Sides, from: number, to: number): Promise<void> => {
  for (let index = from; index < to; index += 1) {
    const name = nameOf(index);
    const boot = { kind: 'kernel', kernel: kernelName } as const;
    await instance.succeed('guest-create', { name, memoryBytes: SMALL_MEMORY_BYTES, boot });
    await instance.succeed('guest-start', { guest: name, paused: true });
    await libvirt.createPaused(await libvirt.define(xmlOf(name, SMALL_MEMORY_BYTES)));
  }
};

const untilAllAreBack = async (client: Client, count: number): Promise<void> => {
  for (;;) {
    const { guests } = await client.call('query-guests', { fields: ['state', 'stale'], limit: count });
    if (guests.filter(({ state, stale }) => state === 'paused' && stale === false).length === count) return;
  }
};

const untilLibvirtHasThem = async (client: LibvirtClient, count: number): Promise<void> => {
  for (;;) {
    const domains = await client.listAll();
    const states = await Promise.all(domains.map((domain) => client.state(domain)));
    if (states.filter((state) => state === PAUSED).length === count) return;
  }
};

/** Until all are back, and until the first answer. */
const restartsOf = async (
  sides: Sides,
  count: number,
  options: TakeOptions,
): Promise<readonly [Figure, Figure]> => {
  const { instance, libvirtd } = sides;
  const answered: number[] = [];
  const roost: Sampler = async () => {
    const { answeredMs, doneMs } = await instance.restart((client) => untilAllAreBack(client, count));
    answered.push(answeredMs);
    return doneMs;
  };
  const sample: Sampler = async () => {
    const begun = performance.now();
    await libvirtd.restart();
    const client = await LibvirtClient.open(libvirtd.socketPath);
    await untilLibvirtHasThem(client, count);
    const ms = performance.now() - begun;
    client.close();
    return ms;
  };
  const peer = { name: 'libvirtd 9, until all its domains are paused', sample };
  const back = await takeFigure(`restart-${count}`, 'ms', { roost, peer }, limits, options);
  return [back, figureOf(`restart-${count}-answer`, 'ms', answered.slice(WARM_UPS))];
};

/** Resident memory of both daemons, in KiB. */
interface Memory {
  readonly roost: number;
  readonly libvirt: number;
}

const memoryOf = async ({ instance, libvirtd }: Sides): Promise<Memory> => ({
  roost: (await instance.client.call('query-daemon', {})).memoryBytes / 1024,
  libvirt: (await libvirtd.memoryBytes()) / 1024,
});

const memoryOfEach = (count: number, before: Memory, after: Memory): Figure =>
  figureOf(`running-guest-memory-${count}`, 'KiB', [(after.roost - before.roost) / count], {
    name: 'libvirtd 9',
    values: [(after.libvirt - before.libvirt) / count],
  });

export const restartRows = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async (sides) => {
    const figures: Figure[] = [];
    const points: Point[] = [];
    const before = await memoryOf(sides);
    let running = 0;
    for (const size of options.short ? SIZES.slice(0, 1) : SIZES) {
      const libvirt = await LibvirtClient.open(sides.libvirtd.socketPath);
      await startMore({ ...sides, instance: sides.instance, libvirt }, running, size);
      libvirt.close();
      running = size;
      figures.push(memoryOfEach(size, before, await memoryOf(sides)));
      const [back, answer] = await restartsOf(sides, size, options);
      points.push({ size, figure: back });
      figures.push(back, answer);
    }
    return points.length < 2 ? figures : [...figures, growthOf('restart-growth', points)];
  });

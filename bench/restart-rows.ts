/** The daemon restarted under guests that run on: until it answers, and until it has taken all of them back. */
import type { Client } from '../cli/client.ts';
import type { InstanceOptions } from './instance.ts';
import { LibvirtClient } from './libvirt/client.ts';
import { type Sides, withLibvirtd } from './libvirt-rows.ts';
import { SMALL_MEMORY_BYTES } from './list-rows.ts';
import { type Figure, figureOf, type SampleLimits, type Sampler, takeFigure } from './measure.ts';
import { kernelName } from './start-rows.ts';

const limits: SampleLimits = { warmUps: 1, samples: 7, budgetMs: 40_000 };
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

const restartsOf = async (sides: Sides, count: number, signal: AbortSignal): Promise<readonly Figure[]> => {
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
  const back = await takeFigure(`restart-${count}`, 'ms', { roost, peer }, limits, signal);
  return [back, figureOf(`restart-${count}-answer`, 'ms', answered.slice(limits.warmUps))];
};

export const restartRows = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async (sides) => {
    const figures: Figure[] = [];
    let running = 0;
    for (const size of SIZES) {
      const libvirt = await LibvirtClient.open(sides.libvirtd.socketPath);
      await startMore({ ...sides, instance: sides.instance, libvirt }, running, size);
      libvirt.close();
      running = size;
      figures.push(...(await restartsOf(sides, size, options.signal)));
    }
    return figures;
  });

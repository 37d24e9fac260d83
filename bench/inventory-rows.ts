/**
 * What an inventory costs as it grows, beside libvirtd 9 with as many equal domains: to define one more, to list all of
 * them, to describe one, to start one, by the socket and by the command line, and the memory to keep them.
 */

import { MEBIBYTE } from '../protocol/types.ts';
import type { InstanceOptions } from './instance.ts';
import type { Domain } from './libvirt/client.ts';
import {
  LIBVIRT_START,
  libvirtStart,
  libvirtStarts,
  type Sides,
  timed,
  withLibvirtd,
} from './libvirt-rows.ts';
import {
  createAll,
  expectCount,
  forEach,
  IN_FLIGHT,
  listSampler,
  programSampler,
  querySampler,
  roostArgv,
  SMALL_MEMORY_BYTES,
} from './list-rows.ts';
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
import { kernelName, startSampler } from './start-rows.ts';

const definitions: SampleLimits = { warmUps: 20, samples: 200, budgetMs: 10_000 };
const lists: SampleLimits = { warmUps: 5, samples: 30, budgetMs: 15_000 };
const records: SampleLimits = { warmUps: 50, samples: 500, budgetMs: 5_000 };
const programs: SampleLimits = { warmUps: 2, samples: 15, budgetMs: 15_000 };
/** Guests in the inventory. */
const SIZES = [10, 1_000, 10_000] as const;
/** Where a state call for each takes too long. */
const MOST_STATE_CALLS = 1_000;

const spec = (
  name: string,
): { name: string; memoryBytes: number; boot: { kind: 'kernel'; kernel: string } } => ({
  name,
  memoryBytes: SMALL_MEMORY_BYTES,
  boot: { kind: 'kernel', kernel: kernelName },
});

const definition = async (row: string, sides: Sides, options: TakeOptions): Promise<Figure> => {
  const { instance, libvirt, xmlOf } = sides;
  const roost: Sampler = async () => {
    const ms = await timed(() => instance.succeed('guest-create', spec('defined')));
    await instance.succeed('guest-delete', { guest: 'defined' });
    return ms;
  };
  const sample: Sampler = async () => {
    const begun = performance.now();
    const domain = await libvirt.define(xmlOf('defined', SMALL_MEMORY_BYTES));
    const ms = performance.now() - begun;
    await libvirt.undefine(domain);
    return ms;
  };
  const peer = { name: 'virDomainDefineXML of libvirtd 9', sample };
  return await takeFigure(row, 'ms', { roost, peer }, definitions, options);
};

const list = async (sides: Sides, size: number, options: TakeOptions): Promise<Figure> => {
  const roost = await listSampler(sides.instance, size, ['name', 'state']);
  const sample: Sampler = () => timed(async () => expectCount(await sides.libvirt.allStates(), size));
  const peer = { name: 'virConnectGetAllDomainStats (state)', sample };
  return await takeFigure(`list-${size}-bulk`, 'ms', { roost, peer }, lists, options);
};

const listWithStateCalls = async (sides: Sides, size: number, options: TakeOptions): Promise<Figure> => {
  const { instance, libvirt } = sides;
  const roost = await listSampler(instance, size, ['name', 'state']);
  const sample: Sampler = () =>
    timed(async () => {
      const domains = await libvirt.listAll();
      expectCount(domains.length, size);
      await Promise.all(domains.map((domain) => libvirt.state(domain)));
    });
  const peer = { name: 'virConnectListAllDomains, virDomainGetState of each', sample };
  return await takeFigure(`list-${size}-states`, 'ms', { roost, peer }, lists, options);
};

const expectName = (found: boolean, name: string): void => {
  if (!found) throw new Error(`the record of ${name} does not name it`);
};

const record = async (sides: Sides, domain: Domain, size: number, options: TakeOptions): Promise<Figure> => {
  const { instance, libvirt } = sides;
  const { name } = domain;
  const roost = await querySampler(instance, 'query-guest', { guest: name }, (answer) =>
    expectName((answer as { name: string }).name === name, name),
  );
  const sample: Sampler = () =>
    timed(async () => expectName((await libvirt.describe(domain)).includes(`<name>${name}</name>`), name));
  const peer = { name: 'virDomainGetXMLDesc of libvirtd 9', sample };
  return await takeFigure(`record-${size}`, 'ms', { roost, peer }, records, options);
};

const virsh = ({ libvirtd }: Sides, ...args: readonly string[]): readonly string[] => [
  '/usr/bin/virsh',
  '-c',
  `qemu+unix:///system?socket=${libvirtd.socketPath}`,
  ...args,
];

const listByProgram = async (sides: Sides, size: number, options: TakeOptions): Promise<Figure> => {
  const sample = programSampler(virsh(sides, 'list', '--all'), size);
  const roost = programSampler(roostArgv(sides.instance, 'ls'), size);
  const both = { roost, peer: { name: 'virsh list --all', sample } };
  return await takeFigure(`cli-ls-${size}-virsh`, 'ms', both, programs, options);
};

const recordByProgram = async (
  sides: Sides,
  { name }: Domain,
  size: number,
  options: TakeOptions,
): Promise<Figure> => {
  const sample = programSampler(virsh(sides, 'dominfo', name), 0);
  const roost = programSampler(roostArgv(sides.instance, 'show', name), 0);
  const both = { roost, peer: { name: 'virsh dominfo', sample } };
  return await takeFigure(`cli-show-${size}`, 'ms', both, programs, options);
};

const startAmong = async (
  sides: Sides,
  domain: Domain,
  size: number,
  options: TakeOptions,
): Promise<Figure> => {
  const roost = await startSampler(sides.instance, domain.name, options.signal);
  const both = { roost, peer: { name: LIBVIRT_START, sample: libvirtStart(sides.libvirt, domain) } };
  return await takeFigure(`start-among-${size}`, 'ms', both, libvirtStarts, options);
};

const memory = async ({ instance, libvirtd }: Sides, size: number): Promise<Figure> => {
  const { memoryBytes } = await instance.client.call('query-daemon', {});
  const theirs = await libvirtd.memoryBytes();
  return figureOf(`daemon-memory-${size}`, 'MiB', [memoryBytes / MEBIBYTE], {
    name: 'libvirtd 9',
    values: [theirs / MEBIBYTE],
  });
};

/** Brings both inventories to the size; gives the last of the new domains, whose guest has the same name. */
const fill = async (sides: Sides, from: number, to: number): Promise<Domain> => {
  const { instance, libvirt, xmlOf } = sides;
  const prefix = `at${to}-stopped`;
  await createAll(instance, to - from, prefix, false);
  let last: Domain | undefined;
  await forEach(to - from, IN_FLIGHT, async (index) => {
    const name = `${prefix}-${String(index).padStart(4, '0')}`;
    last = await libvirt.define(xmlOf(name, SMALL_MEMORY_BYTES));
  });
  if (!last) throw new Error(`${to} is no more than ${from}`);
  return last;
};

const figuresAt = async (
  sides: Sides,
  domain: Domain,
  size: number,
  options: TakeOptions,
): Promise<readonly Figure[]> => [
  await memory(sides, size),
  await definition(`define-${size}`, sides, options),
  await list(sides, size, options),
  ...(size > MOST_STATE_CALLS ? [] : [await listWithStateCalls(sides, size, options)]),
  await record(sides, domain, size, options),
  await listByProgram(sides, size, options),
  await recordByProgram(sides, domain, size, options),
  await startAmong(sides, domain, size, options),
];

/** What grows, by the names of its rows at each size. */
const growths = {
  'define-growth': (size) => `define-${size}`,
  'list-growth': (size) => `list-${size}-bulk`,
  'record-growth': (size) => `record-${size}`,
  'cli-ls-growth': (size) => `cli-ls-${size}-virsh`,
  'cli-show-growth': (size) => `cli-show-${size}`,
  'start-growth': (size) => `start-among-${size}`,
  'daemon-memory-growth': (size) => `daemon-memory-${size}`,
} as const satisfies Record<string, (size: number) => string>;

/** All of them, because it takes long to define so many. */
export const inventoryRows = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async (sides) => {
    const figures = [await memory(sides, 0), await definition('define-libvirt', sides, options)];
    let defined = 0;
    for (const size of options.short ? SIZES.slice(0, 2) : SIZES) {
      const domain = await fill(sides, defined, size);
      defined = size;
      figures.push(...(await figuresAt(sides, domain, size, options)));
    }
    const pointsOf = (rowAt: (size: number) => string): Point[] =>
      SIZES.flatMap((size) => {
        const figure = figures.find(({ row }) => row.name === rowAt(size));
        return figure ? [{ size, figure }] : [];
      });
    return [...figures, ...Object.entries(growths).map(([name, rowAt]) => growthOf(name, pointsOf(rowAt)))];
  });

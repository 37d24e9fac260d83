/**
 * Beside libvirtd 9, which has equal domains: what starts, defines, lists and keeps them. Both daemons stand side by side
 * and are asked in turn; libvirt's calls are those of its library (virDomainCreate, virDomainDefineXML,
 * virConnectListAllDomains with virDomainGetState, virConnectGetAllDomainStats, virsh).
 */
import { join } from 'node:path';
import { MEBIBYTE } from '../protocol/types.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { LibvirtClient } from './libvirt/client.ts';
import { domainXml, type Libvirtd, startLibvirtd } from './libvirt/daemon.ts';
import {
  createAll,
  expectCount,
  listSampler,
  programSampler,
  roostList,
  SMALL_MEMORY_BYTES,
} from './list-rows.ts';
import { type Figure, figureOf, type SampleLimits, type Sampler, takeFigure } from './measure.ts';
import { importIdleKernel, kernelName, MEMORY_BYTES, startSampler } from './start-rows.ts';

const starts: SampleLimits = { warmUps: 2, samples: 20, budgetMs: 30_000 };
const definitions: SampleLimits = { warmUps: 20, samples: 200, budgetMs: 10_000 };
const lists: SampleLimits = { warmUps: 5, samples: 30, budgetMs: 15_000 };
const programs: SampleLimits = { warmUps: 2, samples: 15, budgetMs: 15_000 };
/** Guests at which lists and memory are looked at. */
const SIZES = [10, 1_000, 10_000] as const;

/** Both daemons, and a connection to libvirt's. */
export interface Sides {
  readonly instance: Instance;
  readonly libvirtd: Libvirtd;
  readonly libvirt: LibvirtClient;
  /** Of a domain that boots the kernel that does nothing. */
  readonly xmlOf: (name: string, memoryBytes: number) => string;
}

export const withLibvirtd = async (
  options: InstanceOptions,
  measure: (sides: Sides) => Promise<readonly Figure[]>,
): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    await importIdleKernel(instance);
    const libvirtd = await startLibvirtd(instance.scratchDirectory);
    try {
      const libvirt = await LibvirtClient.open(libvirtd.socketPath);
      const kernel = join(instance.scratchDirectory, kernelName);
      const xmlOf = (name: string, memoryBytes: number): string =>
        domainXml(name, { memoryBytes, kernel, machine: 'pc-q35-7.2' });
      const figures = await measure({ instance, libvirtd, libvirt, xmlOf });
      libvirt.close();
      return figures;
    } finally {
      await libvirtd.close();
    }
  } finally {
    await instance.close();
  }
};

const timed = async (act: () => Promise<unknown>): Promise<number> => {
  const begun = performance.now();
  await act();
  return performance.now() - begun;
};

export const libvirtStartRow = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async ({ instance, libvirt, xmlOf }) => {
    const boot = { kind: 'kernel', kernel: kernelName } as const;
    await instance.succeed('guest-create', { name: 'bare', memoryBytes: MEMORY_BYTES, boot });
    const domain = await libvirt.define(xmlOf('bare', MEMORY_BYTES));
    const sample: Sampler = async () => {
      const ms = await timed(() => libvirt.create(domain));
      await libvirt.destroy(domain);
      return ms;
    };
    const roost = await startSampler(instance, 'bare', options.signal);
    const sides = { roost, peer: { name: 'virDomainCreate of libvirtd 9', sample } };
    return [await takeFigure('start-libvirt', 'ms', sides, starts, options.signal)];
  });

const definition = async ({ instance, libvirt, xmlOf }: Sides, signal: AbortSignal): Promise<Figure> => {
  const roost: Sampler = async () => {
    const ms = await timed(() =>
      instance.succeed('guest-create', {
        name: 'defined',
        memoryBytes: SMALL_MEMORY_BYTES,
        boot: { kind: 'kernel', kernel: kernelName },
      }),
    );
    await instance.succeed('guest-delete', { guest: 'defined' });
    return ms;
  };
  const sample: Sampler = async () => {
    let undefine = async (): Promise<void> => undefined;
    const ms = await timed(async () => {
      const domain = await libvirt.define(xmlOf('defined', SMALL_MEMORY_BYTES));
      undefine = () => libvirt.undefine(domain);
    });
    await undefine();
    return ms;
  };
  const sides = { roost, peer: { name: 'virDomainDefineXML of libvirtd 9', sample } };
  return await takeFigure('define-libvirt', 'ms', sides, definitions, signal);
};

const listsOf = async (sides: Sides, count: number, signal: AbortSignal): Promise<readonly Figure[]> => {
  const { instance, libvirt } = sides;
  const roost = await listSampler(instance, count, ['name', 'state']);
  const eachState: Sampler = () =>
    timed(async () => {
      const domains = await libvirt.listAll();
      expectCount(domains.length, count);
      await Promise.all(domains.map((domain) => libvirt.state(domain)));
    });
  const bulk: Sampler = () => timed(async () => expectCount(await libvirt.allStates(), count));
  const figures = [
    await takeFigure(
      `list-${count}-bulk`,
      'ms',
      { roost, peer: { name: 'virConnectGetAllDomainStats (state)', sample: bulk } },
      lists,
      signal,
    ),
  ];
  if (count > 1_000) return figures;
  const peer = { name: 'virConnectListAllDomains, virDomainGetState of each', sample: eachState };
  return [...figures, await takeFigure(`list-${count}-states`, 'ms', { roost, peer }, lists, signal)];
};

const commandLine = async (
  { instance, libvirtd }: Sides,
  count: number,
  signal: AbortSignal,
): Promise<Figure> => {
  const uri = `qemu+unix:///system?socket=${libvirtd.socketPath}`;
  const sample = programSampler(['/usr/bin/virsh', '-c', uri, 'list', '--all'], count);
  const sides = {
    roost: programSampler(roostList(instance), count),
    peer: { name: 'virsh list --all', sample },
  };
  return await takeFigure(`cli-ls-${count}-virsh`, 'ms', sides, programs, signal);
};

const memory = async ({ instance, libvirtd }: Sides, count: number): Promise<Figure> => {
  const { memoryBytes } = await instance.client.call('query-daemon', {});
  const theirs = await libvirtd.memoryBytes();
  return figureOf(`daemon-memory-${count}`, 'MiB', [memoryBytes / MEBIBYTE], {
    name: 'libvirtd 9',
    values: [theirs / MEBIBYTE],
  });
};

/** How a time grows from one size to another: 1 is in proportion, 0 not at all. */
const growth = (name: string, small: Figure, large: Figure, factor: number): Figure => {
  const exponent = (from: number | null, to: number | null): number =>
    Math.log((to ?? Number.NaN) / (from ?? Number.NaN)) / Math.log(factor);
  const peerName = large.row.peerName ?? '';
  return figureOf(name, 'exponent', [exponent(small.row.roost, large.row.roost)], {
    name: peerName,
    values: [exponent(small.row.peer, large.row.peer)],
  });
};

/** Definition, lists, command line and memory, with more and more guests that are defined. */
export const libvirtListRows = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async (sides) => {
    const { signal } = options;
    const figures = [await definition(sides, signal), await memory(sides, 0)];
    let defined = 0;
    for (const size of SIZES) {
      await createAll(sides.instance, size - defined, `at${size}-stopped`, false);
      for (; defined < size; defined += 1)
        await sides.libvirt.define(
          sides.xmlOf(`stopped-${String(defined).padStart(4, '0')}`, SMALL_MEMORY_BYTES),
        );
      figures.push(...(await listsOf(sides, size, signal)));
      if (size === 1_000) figures.push(await commandLine(sides, size, signal));
      if (size > 10) figures.push(await memory(sides, size));
    }
    const bulkAt = (size: number): Figure[] => figures.filter(({ row }) => row.name === `list-${size}-bulk`);
    const [small, large] = [...bulkAt(1_000), ...bulkAt(10_000)];
    return small && large ? [...figures, growth('list-growth', small, large, 10)] : figures;
  });

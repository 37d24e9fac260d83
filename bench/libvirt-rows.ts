/**
 * Beside libvirtd 9, which has equal domains: both daemons stand side by side and are asked in turn. libvirt's calls are
 * those of its library.
 */
import { join } from 'node:path';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Domain, LibvirtClient } from './libvirt/client.ts';
import { domainXml, type Libvirtd, startLibvirtd } from './libvirt/daemon.ts';
import { type Figure, type SampleLimits, type Sampler, takeFigure } from './measure.ts';
import { importIdleKernel, kernelName, MEMORY_BYTES, startSampler } from './start-rows.ts';

export const LIBVIRT_START = 'virDomainCreate of libvirtd 9';
export const libvirtStarts: SampleLimits = { warmUps: 2, samples: 20, budgetMs: 30_000 };

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

export const timed = async (act: () => Promise<unknown>): Promise<number> => {
  const begun = performance.now();
  await act();
  return performance.now() - begun;
};

/** From the call until a domain runs; it is ended again. */
export const libvirtStart =
  (libvirt: LibvirtClient, domain: Domain): Sampler =>
  async () => {
    const ms = await timed(() => libvirt.create(domain));
    await libvirt.destroy(domain);
    return ms;
  };

export const libvirtStartRow = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async ({ instance, libvirt, xmlOf }) => {
    const boot = { kind: 'kernel', kernel: kernelName } as const;
    await instance.succeed('guest-create', { name: 'bare', memoryBytes: MEMORY_BYTES, boot });
    const domain = await libvirt.define(xmlOf('bare', MEMORY_BYTES));
    const roost = await startSampler(instance, 'bare', options.signal);
    const sides = { roost, peer: { name: LIBVIRT_START, sample: libvirtStart(libvirt, domain) } };
    return [await takeFigure('start-libvirt', 'ms', sides, libvirtStarts, options)];
  });

/** Guests made and deleted again, many at a time, beside libvirtd 9 that defines and undefines equal domains. */
import type { InstanceOptions } from './instance.ts';
import type { Domain } from './libvirt/client.ts';
import { type Sides, timed, withLibvirtd } from './libvirt-rows.ts';
import { createAll, forEach, IN_FLIGHT, SMALL_MEMORY_BYTES } from './list-rows.ts';
import { type Figure, growthOf, type Point, type SampleLimits, takeFigure } from './measure.ts';

const SIZES = [100, 1_000, 4_000] as const;
const limits: SampleLimits = { warmUps: 0, samples: 3, budgetMs: 60_000 };
const PREFIX = 'churned';

const nameOf = (index: number): string => `${PREFIX}-${String(index).padStart(4, '0')}`;

/** Milliseconds for each of so many guests. */
const churn = async ({ instance }: Sides, count: number): Promise<number> => {
  const ms = await timed(async () => {
    await createAll(instance, count, PREFIX, false);
    await forEach(count, IN_FLIGHT, (index) => instance.succeed('guest-delete', { guest: nameOf(index) }));
  });
  return ms / count;
};

const churnDomains = async ({ libvirt, xmlOf }: Sides, count: number): Promise<number> => {
  const domains: Domain[] = [];
  const ms = await timed(async () => {
    await forEach(count, IN_FLIGHT, async (index) => {
      domains.push(await libvirt.define(xmlOf(nameOf(index), SMALL_MEMORY_BYTES)));
    });
    await forEach(count, IN_FLIGHT, async (index) => {
      const domain = domains[index];
      if (domain) await libvirt.undefine(domain);
    });
  });
  return ms / count;
};

export const churnRows = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async (sides) => {
    const points: Point[] = [];
    for (const size of options.short ? SIZES.slice(0, 2) : SIZES) {
      const peer = { name: 'define and undefine of libvirtd 9', sample: () => churnDomains(sides, size) };
      const both = { roost: () => churn(sides, size), peer };
      const name = `create-delete-${size}`;
      points.push({ size, figure: await takeFigure(name, 'ms', both, limits, options) });
    }
    return [...points.map(({ figure }) => figure), growthOf('create-delete-growth', points)];
  });

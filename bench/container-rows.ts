/**
 * `roost run --rm IMAGE true` from the spawn of the command to its end, cold and from a template, without network and on
 * one; against `docker run` and `podman run` of the same files. Each has its daemon and its network up.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MEBIBYTE } from '../protocol/types.ts';
import { type MicrovmImages, makeMicrovmImages } from '../test/harness/microvm-home.ts';
import { type Containers, startContainers } from './containers.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { programSampler, roostArgv } from './list-rows.ts';
import { type Figure, type SampleLimits, type Sampler, takeFigure } from './measure.ts';
import { waitingIn } from './waiting-forks.ts';

const limits: SampleLimits = { warmUps: 1, samples: 15, budgetMs: 60_000 };
const WARM_MEBIBYTES = 256;
/** A little more, so that no template has it. */
const COLD_MEBIBYTES = 257;
const NETWORK = 'lan';
const networkOf = { apart: [], linked: ['--network', NETWORK] } as const;
type Template = keyof typeof networkOf;
const COMMAND = ['box', 'true'] as const;

export const containerRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const images = await makeMicrovmImages();
  // One for each of the two templates.
  const instance = await startInstance({ ...options, waiting: 2 });
  const containers = await startContainers(instance.scratchDirectory, join(images.directory, 'layer.tar'));
  try {
    await prepare(instance, images);
    return await measure(instance, containers, options);
  } finally {
    await containers.close();
    await instance.close();
    await rm(images.directory, { recursive: true, force: true });
  }
};

const prepare = async (instance: Instance, images: MicrovmImages): Promise<void> => {
  await images.importInto(instance);
  await instance.succeed('network-create', { name: NETWORK, kind: 'nat' });
  for (const [name, nics] of [
    ['apart', []],
    ['linked', [{ network: NETWORK }]],
  ] as const) {
    await instance.succeed('guest-create', {
      name,
      machine: 'microvm',
      memoryBytes: WARM_MEBIBYTES * MEBIBYTE,
      program: { image: 'box' },
      nics: [...nics],
    });
    await instance.succeed('template-create', { guest: name });
  }
};

const measure = async (
  instance: Instance,
  { docker, podman }: Containers,
  options: InstanceOptions,
): Promise<readonly Figure[]> => {
  const cold = programSampler(runArgv(instance, COLD_MEBIBYTES), 0);
  const warm = (template: Template) => warmSampler(instance, template);
  const apart = ['--network', 'none'] as const;
  const byDocker = (...args: readonly string[]) => ({
    name: 'docker run',
    sample: programSampler([...docker, 'run', '--rm', ...args, ...COMMAND], 0),
  });
  const byPodman = {
    name: 'podman run',
    sample: programSampler([...podman, 'run', '--rm', ...apart, ...COMMAND], 0),
  };
  const row = (name: string, sides: Parameters<typeof takeFigure>[2]): Promise<Figure> =>
    takeFigure(name, 'ms', sides, limits, options);
  return [
    await row('run-cold', { roost: cold, peer: byDocker(...apart) }),
    await row('run-warm', { roost: await warm('apart'), peer: byDocker(...apart) }),
    await row('run-warm-podman', { roost: await warm('apart'), peer: byPodman }),
    await row('run-warm-network', { roost: await warm('linked'), peer: byDocker() }),
  ];
};

/** But for the first, which is thrown away, each finds a fork that waits; the next is made before anything else is measured. */
const warmSampler = async (instance: Instance, template: Template): Promise<Sampler> => {
  const sample = programSampler(runArgv(instance, WARM_MEBIBYTES, ...networkOf[template]), 0);
  const refilled = await waitingIn(instance, template);
  return async () => {
    const ms = await sample();
    await refilled();
    return ms;
  };
};

const runArgv = (instance: Instance, mebibytes: number, ...args: readonly string[]): readonly string[] =>
  roostArgv(instance, 'run', '--rm', '--memory', `${mebibytes}MiB`, ...args, ...COMMAND);

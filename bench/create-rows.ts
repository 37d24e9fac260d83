/**
 * A guest with a disk of its own, ready to be started, against the one thing that cannot be done without: its file, made
 * by hand. What is between the two is the price of a record, a journal and a place of the guest's own.
 */
import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bootSectorDisk } from '../test/guests/boot-sector.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, type SampleLimits, type Sampler, takeFigure } from './measure.ts';

const limits: SampleLimits = { warmUps: 3, samples: 40, budgetMs: 30_000 };
const GIBIBYTE = 1024 ** 3;
const IMAGE = 'base';
const PEER = 'qemu-img create by hand from Node';
const run = promisify(execFile);

export const createRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    const base = await importBase(instance);
    const measure = (row: string, disk: { readonly image?: string }, backing: readonly string[]) => {
      const roost = createSampler(instance, disk);
      const peer = { name: PEER, sample: byHandSampler(instance, backing) };
      return takeFigure(row, 'ms', { roost, peer }, limits, options);
    };
    return [
      await measure('create-blank', {}, []),
      await measure('create-from-image', { image: IMAGE }, ['-F', 'qcow2', '-b', base]),
    ];
  } finally {
    await instance.close();
  }
};

/** Gives the path of the image's file. */
const importBase = async (instance: Instance): Promise<string> => {
  const { client, scratchDirectory } = instance;
  const path = join(scratchDirectory, 'base.raw');
  await writeFile(path, bootSectorDisk('idle'));
  await instance.succeed('image-import', { name: IMAGE, path, format: 'raw' });
  const { stateDirectory } = await client.call('query-daemon', {});
  const { images } = await client.call('query-images', { names: [IMAGE] });
  return join(stateDirectory, 'images', images[0]?.id ?? '', 'image.qcow2');
};

const createSampler =
  (instance: Instance, disk: { readonly image?: string }): Sampler =>
  async () => {
    const begun = performance.now();
    await instance.succeed('guest-create', { name: 'made', disks: [{ ...disk, sizeBytes: GIBIBYTE }] });
    const ms = performance.now() - begun;
    await instance.succeed('guest-delete', { guest: 'made' });
    return ms;
  };

const byHandSampler =
  ({ scratchDirectory }: Instance, backing: readonly string[]): Sampler =>
  async () => {
    const directory = join(scratchDirectory, 'by-hand');
    const path = join(directory, 'disk0.qcow2');
    const argv = ['create', '-q', '-f', 'qcow2', ...backing, path, String(GIBIBYTE)];
    await mkdir(directory);
    const begun = performance.now();
    await run('qemu-img', argv);
    const ms = performance.now() - begun;
    await rm(directory, { recursive: true });
    return ms;
  };

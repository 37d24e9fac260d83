/**
 * A guest made as a linked clone of an image, ready to be started, against the one thing that cannot be done without: the
 * overlay, made by hand. What is between the two is the price of a record, a journal and a place of the guest's own.
 */
import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bootSectorDisk } from '../test/guests/boot-sector.ts';
import { type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, type SampleLimits, takeFigure } from './measure.ts';

const limits: SampleLimits = { warmUps: 3, samples: 40, budgetMs: 30_000 };
const GIBIBYTE = 1024 ** 3;
const run = promisify(execFile);

export const createFromImage = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    const { client, scratchDirectory } = instance;
    const path = join(scratchDirectory, 'base.raw');
    await writeFile(path, bootSectorDisk('idle'));
    await instance.succeed('image-import', { name: 'base', path, format: 'raw' });

    const roost = async (): Promise<number> => {
      const begun = performance.now();
      await instance.succeed('guest-create', {
        name: 'clone',
        disks: [{ image: 'base', sizeBytes: GIBIBYTE }],
      });
      const ms = performance.now() - begun;
      await instance.succeed('guest-delete', { guest: 'clone' });
      return ms;
    };

    const { stateDirectory } = await client.call('query-daemon', {});
    const { images } = await client.call('query-images', { names: ['base'] });
    const base = join(stateDirectory, 'images', images[0]?.id ?? '', 'image.qcow2');
    const directory = join(scratchDirectory, 'by-hand');
    const overlay = join(directory, 'disk0.qcow2');
    const argv = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, overlay, String(GIBIBYTE)];
    const byHand = async (): Promise<number> => {
      await mkdir(directory);
      const begun = performance.now();
      await run('qemu-img', argv);
      const ms = performance.now() - begun;
      await rm(directory, { recursive: true });
      return ms;
    };
    const peer = { name: 'qemu-img create by hand from Node', sample: byHand };
    return [await takeFigure('create-from-image', 'ms', { roost, peer }, limits, options.signal)];
  } finally {
    await instance.close();
  }
};

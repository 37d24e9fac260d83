/**
 * From `guest-start` on the socket until the guest is seen to run, against the floor: the same command line, user and
 * sandbox, spawned by hand with its tap made beforehand.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client } from '../cli/client.ts';
import type { GuestSpecInput } from '../protocol/guest.ts';
import { MEBIBYTE } from '../protocol/types.ts';
import { bootSectorDisk } from '../test/guests/boot-sector.ts';
import { openByHand, type StartByHand } from './by-hand.ts';
import { idleKernel } from './idle-kernel.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, type SampleLimits, type Sampler, takeFigure } from './measure.ts';

const limits: SampleLimits = { warmUps: 3, samples: 40, budgetMs: 40_000 };
export const PEER = 'the same command line by hand from Node';
const NETWORK = 'bench';
export const MEMORY_BYTES = 64 * MEBIBYTE;
const TAP_BY_HAND = 'bench-tap';

export const kernelName = 'idle-kernel';

/** Imports the kernel that does nothing. */
export const importIdleKernel = async (instance: Instance): Promise<void> => {
  const path = join(instance.scratchDirectory, 'idle-kernel');
  await writeFile(path, idleKernel());
  await instance.succeed('image-import', { name: kernelName, kind: 'kernel', path, format: 'raw' });
};

export const startBare = (options: InstanceOptions): Promise<readonly Figure[]> =>
  measureStart('start-bare', options, async (instance) => {
    await importIdleKernel(instance);
    return { name: 'bare', boot: { kind: 'kernel', kernel: kernelName } };
  });

export const startDiskNic = (options: InstanceOptions): Promise<readonly Figure[]> =>
  measureStart('start-disk-nic', options, async (instance) => {
    const path = join(instance.scratchDirectory, 'idle.raw');
    await writeFile(path, bootSectorDisk('idle'));
    await instance.succeed('image-import', { name: 'idle', path, format: 'raw' });
    await instance.succeed('network-create', { name: NETWORK, kind: 'nat' });
    return { name: 'disk-nic', disks: [{ image: 'idle' }], nics: [{ network: NETWORK }] };
  });

const measureStart = async (
  row: string,
  options: InstanceOptions,
  prepare: (instance: Instance) => Promise<GuestSpecInput>,
): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    const spec = await prepare(instance);
    // Without the socket of an agent: the other side would have to make it.
    await instance.succeed('guest-create', { memoryBytes: MEMORY_BYTES, agent: { enabled: false }, ...spec });
    const byHand = await openByHand(instance.scratchDirectory);
    try {
      const bridge = (spec.nics ?? []).length > 0 ? await bridgeOf(instance.client) : undefined;
      const request = await byHandRequest(instance, spec.name, bridge);
      const roost = await startSampler(instance, spec.name, options.signal);
      const sample = async (): Promise<number> => {
        const ms = await byHand.start(request);
        await byHand.end();
        return ms;
      };
      const peer = { name: PEER, sample };
      return [await takeFigure(row, 'ms', { roost, peer }, limits, options)];
    } finally {
      await byHand.close();
    }
  } finally {
    await instance.close();
  }
};

/** Asks for what a start would run; the peer runs exactly that, in the same place, with a tap at the bridge if any. */
export const byHandRequest = async (
  instance: Instance,
  guest: string,
  bridge?: string,
): Promise<StartByHand> => {
  const { client, scratchDirectory } = instance;
  const { argv } = await client.call('guest-plan', { guest });
  const { id } = await client.call('query-guest', { guest });
  const { stateDirectory } = await client.call('query-daemon', {});
  return {
    argv,
    workingDirectory: join(stateDirectory, 'guests', id),
    directory: join(scratchDirectory, 'by-hand'),
    taps: bridge === undefined ? [] : [{ link: TAP_BY_HAND, bridge }],
  };
};

const bridgeOf = async (client: Client): Promise<string> => {
  const { networks } = await client.call('query-networks', { names: [NETWORK] });
  const bridge = networks[0]?.bridge;
  if (bridge === undefined) throw new Error(`network ${NETWORK} has no bridge`);
  return bridge;
};

export const startSampler = async (
  instance: Instance,
  guest: string,
  signal: AbortSignal,
): Promise<Sampler> => {
  const client = await instance.connect();
  await client.call('events-subscribe', { events: ['GUEST_STATE_CHANGED'], guests: [guest] });
  return async () => {
    const events = client.events();
    const begun = performance.now();
    const accepted = client.call('guest-start', { guest }, { signal });
    let ms = Number.NaN;
    for await (const { data } of events) {
      ms = performance.now() - begun;
      if (data['to'] === 'running') break;
      if (data['to'] === 'failed') throw new Error(`guest ${guest} failed: ${JSON.stringify(data)}`);
    }
    await instance.finished((await accepted).operation);
    await instance.succeed('guest-stop', { guest, force: true });
    return ms;
  };
};

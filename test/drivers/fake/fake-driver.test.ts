import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Launch } from '../../../drivers/driver.ts';
import { fakeDriver } from '../../../drivers/fake/fake-driver.ts';
import { FakeHost } from '../../../drivers/fake/fake-host.ts';
import { type GuestSpec, guestSpec } from '../../../protocol/guest.ts';
import type { GuestId, InstanceId } from '../../../protocol/types.ts';
import { type DriverHarness, driverConformance, never, Witness } from '../../conformance/driver.ts';

const instance = 'fake1' as InstanceId;
const runDirectory = '/nonexistent/run';

const makeLaunch = async (changes: Partial<GuestSpec> = {}): Promise<Launch> => {
  const id = randomUUID() as GuestId;
  const spec = { ...guestSpec.parse({ name: 'fake', driver: 'fake' }), ...changes };
  return {
    place: {
      id,
      number: 1,
      instance,
      stateDirectory: `/nonexistent/state/guests/${id}`,
      runDirectory: `${runDirectory}/guests/${id}`,
    },
    name: 'fake',
    machine: await fakeDriver().pin(spec, id, never()),
    memoryBytes: spec.memoryBytes,
    cpu: spec.cpu,
    qemu: spec.qemu,
    agent: true,
    boot: { kind: 'disk' },
    disks: [],
    nics: [],
  };
};

const makeHarness = async (): Promise<DriverHarness> => {
  const host = new FakeHost();
  return {
    instance,
    runDirectory,
    banner: 'ROOST-FAKE-GUEST',
    driver: () => fakeDriver({ host }),
    spec: (changes = {}) => ({ ...guestSpec.parse({ name: 'fake', driver: 'fake' }), ...changes }),
    makeLaunch: async (behaviour, changes) => {
      const launch = await makeLaunch(changes);
      host.misbehaviourOf.set(launch.place.id, { ignoresShutdown: behaviour !== 'acpi' });
      return launch;
    },
    resumed: (launch, behaviour) => {
      if (behaviour === 'poweroff') host.powerOff(launch.place.id);
    },
    killByOther: (launch) => host.kill(launch.place.id),
    gone: async (launch) => expect(host.isAlive(launch.place.id)).toBe(false),
    badLaunch: (good) => {
      const argument = '-no-such-option-of-mine';
      const extraArgs = [{ argument, reason: 'to break it' }];
      return { launch: { ...good, qemu: { ...good.qemu, extraArgs } }, says: argument };
    },
    makeDisk: async (_launch, name) => ({
      format: 'raw',
      path: `/nonexistent/${name}.raw`,
      readOnly: false,
      sizeBytes: 1024 ** 2,
    }),
    loseLock: async ({ place }) => host.unlock(place.id),
    answerUnplug: async ({ place }, _handle, answer) =>
      host.setUnplug(place.id, answer === 'consents' ? undefined : answer),
    [Symbol.asyncDispose]: async () => expect(host.livePids()).toEqual([]),
  };
};

driverConformance('the fake driver', makeHarness);

describe('a fake host', () => {
  const signal = never();
  const start = async (host: FakeHost, launch: Launch, witness = new Witness()) => {
    const context = { signal, descriptors: new Map<string, number>(), observe: witness.observe };
    return await fakeDriver({ host }).launch(launch, context);
  };

  it('lets a monitor go silent and speak again', async () => {
    const host = new FakeHost();
    const launch = await makeLaunch();
    const witness = new Witness();
    const handle = await start(host, launch, witness);
    host.silence(launch.place.id, 'storage');
    await expect(handle.queryState(signal)).rejects.toMatchObject({ class: 'Unavailable' });
    const resumed = handle.resume(signal);
    host.speak(launch.place.id);
    await resumed;
    await witness.until('running');
    expect(witness.story).toEqual(['silent storage', 'heard', 'running']);
  });

  it('lets a guest be silent when it is to be taken over', async () => {
    const host = new FakeHost();
    const launch = await makeLaunch();
    await (await start(host, launch)).release();
    host.silence(launch.place.id);
    const witness = new Witness();
    const context = { signal, cursor: 0, observe: witness.observe };
    const attached = fakeDriver({ host }).attach(launch.place, context);
    await expect(attached).rejects.toMatchObject({ class: 'Unavailable', data: { reason: 'stopped' } });
    expect(witness.story).toEqual(['silent stopped']);
  });

  it('lets launches fail and guests crash', async () => {
    const host = new FakeHost();
    const launch = await makeLaunch();
    host.misbehaviour.launchFails = 'no such disk';
    await expect(start(host, launch)).rejects.toThrow('no such disk');
    delete host.misbehaviour.launchFails;
    host.misbehaviour.crashesAfterLaunch = 'an assertion failed';
    const end = await (await start(host, launch)).ended;
    expect(end).toMatchObject({ cause: 'crashed', detail: 'an assertion failed' });
  });

  it('holds a call up until the test lets it go on, or its caller gives up', async () => {
    const host = new FakeHost();
    const launch = await makeLaunch();
    const calls: string[] = [];
    host.misbehaviour.before = (call) => void calls.push(call);
    const handle = await start(host, launch);
    host.misbehaviour.before = () => Promise.reject(new Error('not now'));
    await expect(handle.resume(signal)).rejects.toThrow('not now');
    expect(calls).toEqual(['launch']);
  });

  it('loses every process and socket when it is booted', async () => {
    const host = new FakeHost();
    const launch = await makeLaunch();
    const handle = await start(host, launch);
    host.reboot();
    expect((await handle.ended).cause).toBe('killed');
    expect(await fakeDriver({ host }).inspect({ instance, runDirectory })).toEqual([]);
    expect(await fakeDriver({ host }).probe(launch.place)).toBe('gone');
  });
});

/**
 * The rules of `drivers/driver.ts`, held against any driver. A harness stands for the host around it: it prepares
 * launches, and does to guests what nobody asked the driver for. Each `driver()` is one as after a restart of the
 * daemon.
 */
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type {
  Driver,
  GuestEnd,
  GuestHandle,
  Launch,
  Observation,
  Observer,
  PinnedMachine,
  PluggedDevice,
  ProcessIdentity,
} from '../../drivers/driver.ts';
import { deferred } from '../../lib/abort.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { GuestId, InstanceId, MacAddress } from '../../protocol/types.ts';

/** `idle` ignores the power button, `acpi` obeys it, `poweroff` powers itself off once it runs, `echo` echoes. */
export type GuestBehaviour = 'idle' | 'acpi' | 'poweroff' | 'echo';

/** What a guest has that is to give up a device: its consent, a refusal, or nothing to say. */
export type UnplugAnswer = 'consents' | 'ignores';

export interface DriverHarness extends AsyncDisposable {
  readonly instance: InstanceId;
  readonly runDirectory: string;
  driver(): Driver;
  spec(changes?: Partial<GuestSpec>): GuestSpec;
  /** A new guest, ready to be launched. */
  makeLaunch(behaviour: GuestBehaviour, changes?: Partial<GuestSpec>): Promise<Launch>;
  /** Makes `poweroff` true for drivers whose guests run no code. Called when the guest has been resumed. */
  resumed(launch: Launch, behaviour: GuestBehaviour): void;
  /** Kills the process the way somebody else would. */
  killByOther(launch: Launch, process: ProcessIdentity): void;
  /** Resolves when the process is gone, whoever watches it. */
  gone(launch: Launch, process: ProcessIdentity): Promise<void>;
  /** Takes away the lock of a live process, the way somebody else would. */
  loseLock(launch: Launch): Promise<void>;
  /** The guest's first words on its console. */
  readonly banner: string;
  /** A launch that the process itself refuses, and a part of its words. */
  badLaunch(good: Launch): { readonly launch: Launch; readonly says: string };
  /** A new disk file for a guest that was launched. */
  makeDisk(launch: Launch, name: string): Promise<BlockSource>;
  /** From now on the guest answers so when it is to give up a device; `handle` is its live process. */
  answerUnplug(launch: Launch, handle: GuestHandle, answer: UnplugAnswer): Promise<void>;
}

/** Collects observations and waits for one. */
export class Witness {
  readonly seen: { readonly observation: Observation; readonly cursor: number }[] = [];
  readonly #waiters = new Set<() => void>();

  readonly observe: Observer = (observation, cursor) => {
    this.seen.push({ observation, cursor });
    for (const waiter of this.#waiters) waiter();
  };

  get cursor(): number {
    return this.seen.at(-1)?.cursor ?? 0;
  }

  /** What was observed, in words that do not depend on time. */
  get story(): readonly string[] {
    return this.seen.map(({ observation }) => tell(observation));
  }

  async until(told: string, times = 1): Promise<void> {
    const isThere = (): boolean => this.story.filter((line) => line === told).length >= times;
    if (isThere()) return;
    const there = deferred<void>();
    const waiter = (): void => {
      if (isThere()) there.resolve();
    };
    this.#waiters.add(waiter);
    await there.promise;
    this.#waiters.delete(waiter);
  }
}

const tell = (observation: Observation): string => {
  switch (observation.kind) {
    case 'state':
      return [observation.observed.state, observation.observed.reason].filter(Boolean).join(' ');
    case 'driver-event':
      // A BIOS that is reset in the middle of its work resets the machine once more.
      return observation.data['guest'] === true ? `${observation.event} by the guest` : observation.event;
    case 'agent':
      return observation.isOpen ? 'agent opened' : 'agent closed';
    case 'silent':
      return `silent ${observation.reason}`;
    case 'filesystem-lost':
    case 'program-ended':
    case 'guest-shutdown':
    case 'heard':
      return observation.kind;
  }
};

export const never = (): AbortSignal => new AbortController().signal;

const keys = (objects: readonly HostObject[]): readonly string[] => objects.map(hostObjectKey).toSorted();

/** `hasDevices`: whether its guests have disks and drives, and take and give devices while they run. */
export const driverConformance = (
  name: string,
  makeHarness: () => Promise<DriverHarness>,
  { hasDevices = true }: { readonly hasDevices?: boolean } = {},
): void => {
  describe(`${name} keeps the contract of a driver`, () => {
    let harness: DriverHarness;
    let driver: Driver;
    let witness: Witness;
    const signal = never();

    beforeEach(async () => {
      harness = await makeHarness();
      driver = harness.driver();
      witness = new Witness();
    });
    afterEach(() => harness[Symbol.asyncDispose]());

    const descriptors = new Map<string, number>();
    const inspected = async (): Promise<readonly string[]> => keys(await driver.inspect(harness));
    const launchWith = (launch: Launch, by = driver, observe = witness.observe): Promise<GuestHandle> =>
      by.launch(launch, { signal, descriptors, observe });
    const attachWith = (launch: Launch, cursor: number, by = driver, seen = witness): Promise<GuestHandle> =>
      by.attach(launch.place, { signal, cursor, observe: seen.observe });
    const autopsyWith = (launch: Launch, cursor: number, seen = witness): Promise<GuestEnd> =>
      driver.autopsy(launch.place, { signal, cursor, observe: seen.observe });
    const endWith = async (handle: GuestHandle): Promise<GuestEnd> => {
      await handle.kill(signal);
      const end = await handle.ended;
      await handle.release();
      return end;
    };
    const run = async (launch: Launch, behaviour: GuestBehaviour): Promise<GuestHandle> => {
      const handle = await launchWith(launch);
      await handle.resume(signal);
      harness.resumed(launch, behaviour);
      return handle;
    };

    describe('pin', () => {
      const nic = (name: string, last: number): GuestSpec['nics'][number] => ({
        name,
        network: 'default',
        mac: `52:54:00:00:00:0${last}` as MacAddress,
      });
      const disk = (name: string): GuestSpec['disks'][number] => ({ name, sizeBytes: 512, readOnly: false });
      const id = '0b6a3f4e-3c9f-4d0c-8d52-3f0a1f1f7a11' as GuestId;

      it('gives every device its own address, and every disk its own serial', async () => {
        const disks = hasDevices ? [disk('a'), disk('b')] : [];
        const spec = harness.spec({ disks, nics: [nic('x', 1), nic('y', 2)] });
        const machine = await driver.pin(spec, id, signal);
        const addresses = [...machine.disks, ...machine.nics].map(({ address }) => address);
        expect(new Set(addresses).size).toBe(disks.length + 2);
        expect(new Set(machine.disks.map(({ serial }) => serial)).size).toBe(disks.length);
        expect(machine.nics.map(({ mac }) => mac)).toEqual(['52:54:00:00:00:01', '52:54:00:00:00:02']);
        expect(await driver.pin(spec, id, signal)).toEqual(machine);
      });

      it('renames nothing that stays when devices come and go', async () => {
        const disks = (names: readonly string[]): GuestSpec['disks'] => (hasDevices ? names.map(disk) : []);
        const before = harness.spec({ disks: disks(['a', 'b']), nics: [nic('x', 1)] });
        const machine = await driver.pin(before, id, signal);
        const after = harness.spec({ disks: disks(['b', 'c']), nics: [nic('w', 3), nic('x', 1)] });
        const changed = await driver.repin(after, machine, signal);
        expect(changed.type).toBe(machine.type);
        expect(changed.disks.map((one) => one.name)).toEqual(after.disks.map(({ name }) => name));
        expect(changed.disks[0]).toEqual(machine.disks[1]);
        expect(changed.nics[1]).toEqual(machine.nics[0]);
        const addresses = [...changed.disks, ...changed.nics].map(({ address }) => address);
        expect(new Set(addresses).size).toBe(after.disks.length + 2);
        const serials = [...machine.disks, ...changed.disks].map(({ serial }) => serial);
        expect(new Set(serials).size).toBe(hasDevices ? 3 : 0);
        expect(await driver.repin(after, changed, signal)).toEqual(changed);
      });

      it('refuses a machine that it does not have', async () => {
        const spec = harness.spec({ machine: 'unsupported-1.0' });
        await expect(driver.pin(spec, id, signal)).rejects.toMatchObject({ class: 'Unsupported' });
      });
    });

    it('makes nothing by planning, and exactly the planned by launching', async () => {
      const launch = await harness.makeLaunch('idle');
      const plan = await driver.plan(launch, signal);
      expect(await inspected()).toEqual([]);
      expect(keys(driver.runObjects(launch.place, launch))).toEqual(keys(plan.objects));
      const handle = await launchWith(launch);
      expect(await inspected()).toEqual(keys(plan.objects));
      await endWith(handle);
      expect((await inspected()).filter((key) => key.startsWith('process'))).toEqual([]);
      await driver.clear(launch.place);
      expect(await inspected()).toEqual([]);
    });

    it('launches a guest that stands still until it is resumed', async () => {
      const launch = await harness.makeLaunch('idle');
      expect(await driver.probe(launch.place)).toBe('gone');
      const handle = await launchWith(launch);
      expect(await driver.probe(launch.place)).toBe('alive');
      expect(await handle.queryState(signal)).toEqual({ state: 'starting' });
      await handle.resume(signal);
      await witness.until('running');
      expect(await handle.queryState(signal)).toEqual({ state: 'running' });
      expect((await endWith(handle)).cause).toBe('asked');
      expect(await driver.probe(launch.place)).toBe('gone');
    });

    it('pauses, resumes and resets', async () => {
      const handle = await run(await harness.makeLaunch('idle'), 'idle');
      await handle.pause(signal);
      await witness.until('paused user');
      expect(await handle.queryState(signal)).toEqual({ state: 'paused', reason: 'user' });
      await handle.resume(signal);
      await handle.reset(signal);
      await witness.until('RESET');
      expect(await handle.queryState(signal)).toEqual({ state: 'running' });
      const story = witness.story.filter((line) => line !== 'RESET by the guest');
      expect(story).toEqual(['running', 'paused user', 'running', 'RESET']);
      await endWith(handle);
    });

    it('asks the guest to power off, and tells that it did', async () => {
      const launch = await harness.makeLaunch('acpi');
      const handle = await run(launch, 'acpi');
      await handle.resume(signal);
      await booted(handle, launch);
      await handle.requestShutdown(signal);
      expect((await handle.ended).cause).toBe('guest-shutdown');
      expect(witness.story.filter((line) => line === 'guest-shutdown')).toHaveLength(1);
      await handle.release();
    });

    it('only asks: a guest that ignores the power button runs on', async () => {
      const handle = await run(await harness.makeLaunch('idle'), 'idle');
      await handle.requestShutdown(signal);
      expect(await handle.queryState(signal)).toEqual({ state: 'running' });
      expect((await endWith(handle)).cause).toBe('asked');
    });

    it('has an agent where the machine has a channel, and asks nobody while it is not open', async () => {
      const launch = await harness.makeLaunch('idle', { agent: { enabled: true } });
      // Not before it is resumed; a guest may have one that opens it then.
      const handle = await launchWith(launch);
      expect(handle.agent?.isOpen).toBe(false);
      await expect(handle.agent?.ping(signal)).rejects.toMatchObject({ class: 'Unavailable' });
      await handle.release();
      const again = await attachWith(launch, witness.cursor);
      expect(again.agent?.isOpen).toBe(false);
      await endWith(again);
      await driver.clear(launch.place);
      const without = await launchWith({ ...launch, agent: false });
      expect(without.agent).toBeUndefined();
      expect(await inspected()).toEqual(keys(driver.runObjects(launch.place, { agent: false })));
      await without.release();
      const withoutAgain = await attachWith(launch, 0);
      expect(withoutAgain.agent).toBeUndefined();
      await endWith(withoutAgain);
    });

    it('lets a process hold a lock that was taken away again, for as long as it lives', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      const found = async (): Promise<boolean | undefined> =>
        (await driver.processes()).find(({ guest }) => guest === launch.place.id)?.holdsLock;
      await handle.holdLock(signal);
      expect(await found()).toBe(true);
      const objects = await inspected();
      await harness.loseLock(launch);
      expect({ held: await found(), probe: await driver.probe(launch.place) }).toEqual({
        held: false,
        probe: 'gone',
      });
      await handle.holdLock(signal);
      await handle.holdLock(signal);
      expect({ held: await found(), probe: await driver.probe(launch.place) }).toEqual({
        held: true,
        probe: 'alive',
      });
      expect(await inspected()).toEqual(objects);
      await handle.release();
      expect(await driver.probe(launch.place)).toBe('alive');
      const again = await attachWith(launch, witness.cursor);
      expect(again.process).toEqual(handle.process);
      expect(await again.queryState(signal)).toEqual({ state: 'running' });
      await endWith(again);
      expect(await driver.probe(launch.place)).toBe('gone');
      await driver.clear(launch.place);
      expect(await inspected()).toEqual([]);
    });

    it('tells of the end once its last events have been observed', async () => {
      const handle = await run(await harness.makeLaunch('poweroff'), 'poweroff');
      let storyAtEnd: readonly string[] = [];
      const end = await handle.ended.then((how) => {
        storyAtEnd = witness.story;
        return how;
      });
      expect(end.cause).toBe('guest-shutdown');
      // A driver may tell more of it in words of its own.
      expect(storyAtEnd.slice(0, 2)).toEqual(['running', 'guest-shutdown']);
      expect(witness.seen.slice(2).map(({ observation }) => observation.kind)).toEqual(
        storyAtEnd.slice(2).map(() => 'driver-event'),
      );
      expect(await handle.ended).toBe(end);
      // Killing what is gone is done already.
      await handle.kill(signal);
      await handle.release();
      await handle.release();
    });

    it('knows a process that somebody else killed', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      harness.killByOther(launch, handle.process);
      expect(await handle.ended).toMatchObject({
        cause: 'killed',
        detail: expect.stringContaining('SIGKILL'),
      });
      await handle.release();
    });

    it('lets go of a guest and takes it back, missing and repeating nothing', async () => {
      const launch = await harness.makeLaunch('idle');
      const first = await run(launch, 'idle');
      await witness.until('running');
      const cursor = witness.cursor;
      await first.release();
      expect(await driver.probe(launch.place)).toBe('alive');

      const other = await harness.driver().attach(launch.place, { signal, cursor, observe: () => undefined });
      await other.pause(signal);
      await other.resume(signal);
      await other.release();

      const later = new Witness();
      const second = await attachWith(launch, cursor, harness.driver(), later);
      expect(second.process).toEqual(first.process);
      expect(second.accel).toBe(first.accel);
      expect(later.story).toEqual(['paused user', 'running']);
      await second.pause(signal);
      await later.until('paused user', 2);
      expect(later.story).toEqual(['paused user', 'running', 'paused user']);
      expect(witness.story).toEqual(['running']);

      await second.release();
      const all = new Witness();
      const third = await attachWith(launch, 0, driver, all);
      expect(all.story).toEqual(['running', 'paused user', 'running', 'paused user']);
      expect(all.cursor).toBe(later.cursor);
      const cursors = all.seen.map((one) => one.cursor);
      expect(cursors).toEqual([...new Set(cursors)].toSorted((a, b) => a - b));
      await endWith(third);
    });

    it('goes on from every cursor it ever gave', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      await handle.pause(signal);
      await handle.resume(signal);
      await handle.reset(signal);
      await witness.until('RESET');
      await endWith(handle);
      const whole = witness.story;
      for (const [index, { cursor }] of witness.seen.entries()) {
        const rest = new Witness();
        await autopsyWith(launch, cursor, rest);
        expect(rest.story).toEqual(whole.slice(index + 1));
      }
    });

    it('takes a guest over again from a handle that was never let go of', async () => {
      const launch = await harness.makeLaunch('idle');
      const first = await run(launch, 'idle');
      await witness.until('running');
      const second = await attachWith(launch, witness.cursor);
      expect(await second.queryState(signal)).toEqual({ state: 'running' });
      await second.pause(signal);
      await witness.until('paused user');
      expect(witness.story).toEqual(['running', 'paused user']);
      await endWith(second);
      await first.release();
    });

    it('finds out afterwards that the guest powered itself off', async () => {
      const launch = await harness.makeLaunch('poweroff');
      const handle = await launchWith(launch);
      await handle.resume(signal);
      await witness.until('running');
      const { cursor } = witness;
      await handle.release();
      harness.resumed(launch, 'poweroff');
      await harness.gone(launch, handle.process);

      await expect(attachWith(launch, cursor)).rejects.toMatchObject({ class: 'NotFound' });
      const later = new Witness();
      const end = await autopsyWith(launch, cursor, later);
      expect(end.cause).toBe('guest-shutdown');
      expect(later.story.filter((line) => line === 'guest-shutdown')).toHaveLength(
        witness.story.includes('guest-shutdown') ? 0 : 1,
      );
      const again = new Witness();
      expect(await autopsyWith(launch, later.cursor || cursor, again)).toEqual(end);
      expect(again.story).toEqual([]);
    });

    it('finds out afterwards that the process was killed, or says that it cannot tell', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      await witness.until('running');
      await handle.release();
      harness.killByOther(launch, handle.process);
      await harness.gone(launch, handle.process);
      const end = await autopsyWith(launch, witness.cursor);
      expect(['killed', 'unknown']).toContain(end.cause);
      expect(end.detail).toBeTypeOf('string');
      expect(witness.story).toEqual(['running']);
    });

    it('ends a process without attaching to it, and knows afterwards that it was asked to', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      await handle.release();
      await driver.destroy(launch.place, signal);
      await harness.gone(launch, handle.process);
      expect(await driver.probe(launch.place)).toBe('gone');
      expect((await autopsyWith(launch, 0)).cause).toBe('asked');
      await driver.destroy(launch.place, signal);
    });

    it('clears as often as it is told to, but not under a live guest', async () => {
      const launch = await harness.makeLaunch('idle');
      await driver.clear(launch.place);
      const handle = await launchWith(launch);
      await expect(driver.clear(launch.place)).rejects.toMatchObject({ class: 'FailedPrecondition' });
      await expect(autopsyWith(launch, 0)).rejects.toMatchObject({ class: 'FailedPrecondition' });
      expect(await handle.queryState(signal)).toEqual({ state: 'starting' });
      await endWith(handle);
      await driver.clear(launch.place);
      await driver.clear(launch.place);
      await autopsyWith(launch, 0);
    });

    it('refuses a second process of a guest, and does not harm the first', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      for (const by of [driver, harness.driver()]) {
        const second = launchWith(launch, by, () => undefined);
        await expect(second).rejects.toMatchObject({ class: 'FailedPrecondition' });
      }
      expect(await handle.queryState(signal)).toEqual({ state: 'running' });
      expect((await endWith(handle)).cause).toBe('asked');
    });

    it('leaves nothing of a launch that fails, and tells the words of the process', async () => {
      const good = await harness.makeLaunch('idle');
      const { launch: bad, says } = harness.badLaunch(good);
      await expect(launchWith(bad)).rejects.toMatchObject({
        class: 'HostError',
        message: expect.stringContaining(says),
        data: { said: expect.stringContaining(says) },
      });
      expect(await inspected()).toEqual([]);
      expect(await driver.probe(good.place)).toBe('gone');
      await endWith(await launchWith(good));
    });

    it('leaves nothing of a launch that is given up', async () => {
      const launch = await harness.makeLaunch('idle');
      const given = new AbortController();
      const context = { signal: given.signal, descriptors, observe: witness.observe };
      const launching = driver.launch(launch, context);
      given.abort(new Error('changed my mind'));
      await expect(launching).rejects.toThrow('changed my mind');
      await expect(driver.launch(launch, context)).rejects.toThrow('changed my mind');
      expect(await inspected()).toEqual([]);
      expect(await driver.probe(launch.place)).toBe('gone');
    });

    it('connects to the console, and keeps what it said', async () => {
      const launch = await harness.makeLaunch('echo');
      const handle = await launchWith(launch);
      const line = await handle.openConsole(signal);
      let heard = '';
      line.on('data', (chunk: Buffer) => {
        heard += chunk.toString();
      });
      const hear = async (text: string): Promise<void> => {
        while (!heard.includes(text)) await once(line, 'data');
      };
      await handle.resume(signal);
      await booted(handle, launch);
      // A byte is in the log before the next one is sent, so the last one's echo says that those before it are kept.
      line.write('hello!');
      await hear('hello!');
      const log = await driver.readLog(launch.place, 'console', { maxBytes: 4096 });
      expect(log.text).toContain(harness.banner);
      expect(log.text).toContain('hello');
      const part = await driver.readLog(launch.place, 'console', { offset: 2, maxBytes: 3 });
      expect(part).toMatchObject({ offset: 2, nextOffset: 5, text: log.text.slice(2, 5) });
      line.destroy();
      await endWith(handle);
      expect((await driver.readLog(launch.place, 'events', { maxBytes: 4096 })).sizeBytes).toBeGreaterThan(0);
    });

    it('finds the live processes of guests, by their locks, and none that is gone', async () => {
      const launch = await harness.makeLaunch('idle');
      const lock = driver.runObjects(launch.place, launch).find(({ kind }) => kind === 'process')?.name;
      const mine = async (): Promise<readonly unknown[]> =>
        (await driver.processes()).filter((found) => found.guest === launch.place.id);
      expect(await mine()).toEqual([]);
      const handle = await launchWith(launch);
      expect(await mine()).toEqual([
        { process: handle.process, guest: launch.place.id, name: launch.name, lock, holdsLock: true },
      ]);
      await endWith(handle);
      expect(await mine()).toEqual([]);
    });

    it('probes, attaches and reads nothing where there is nothing', async () => {
      const launch = await harness.makeLaunch('idle');
      expect(await driver.probe(launch.place)).toBe('gone');
      await expect(attachWith(launch, 0)).rejects.toMatchObject({ class: 'NotFound' });
      expect((await autopsyWith(launch, 0)).cause).toBe('unknown');
      expect(await driver.readLog(launch.place, 'process', { maxBytes: 10 })).toEqual({
        text: '',
        offset: 0,
        nextOffset: 0,
        sizeBytes: 0,
      });
      await driver.destroy(launch.place, signal);
    });

    it('waits for the answer of a live process, and for none of a process that is gone', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await launchWith(launch);
      await handle.release();
      const context = { signal, cursor: witness.cursor, observe: witness.observe };
      await driver.awaitAnswer(launch.place, context);
      const again = await attachWith(launch, witness.cursor);
      expect(again.process).toEqual(handle.process);
      await endWith(again);
      await expect(driver.awaitAnswer(launch.place, context)).rejects.toMatchObject({ class: 'NotFound' });
    });

    it('keeps a transcript of the monitor: in order, in parts, over a restart of the daemon', async () => {
      const launch = await harness.makeLaunch('idle');
      const handle = await run(launch, 'idle');
      await handle.pause(signal);
      const before = await driver.readTranscript(launch.place, { limit: 1000 });
      expect(before.unanswered).toEqual([]);
      const kinds = new Set(before.entries.map(({ kind }) => kind));
      expect(kinds).toEqual(new Set([...kinds, 'command', 'reply']));
      const numbers = before.entries.map(({ number }) => number);
      expect(numbers).toEqual(numbers.map((_, index) => index + 1));
      const last = numbers.length;
      const part = await driver.readTranscript(launch.place, { after: 1, limit: 2 });
      expect(part.entries).toEqual(before.entries.slice(1, 3));
      await handle.release();

      const next = harness.driver();
      const again = await attachWith(launch, witness.cursor, next);
      await again.resume(signal);
      const { entries } = await next.readTranscript(launch.place, { after: last, limit: 1000 });
      expect(entries[0]?.number).toBe(last + 1);
      const end = await endWith(again);
      expect(end.cause).toBe('asked');
      await next.clear(launch.place);
      const kept = await harness.driver().readTranscript(launch.place, { limit: 1000 });
      expect(kept.entries.slice(0, last)).toEqual(before.entries);
    });

    const refusesDevices = (): void => {
      it('has no disks, and refuses to change its NICs while it runs', async () => {
        const launch = await harness.makeLaunch('idle');
        expect(driver.hotplugs(launch.machine)).toBe(false);
        const handle = await run(launch, 'idle');
        expect(handle.disks).toBeUndefined();
        expect(await handle.devices(signal)).toEqual({ disks: new Set(), nics: new Set() });
        const mac = '52:54:00:00:00:09' as MacAddress;
        const pinned = { name: 'extra', mac, address: 'nowhere' };
        const nic = { kind: 'nic', pinned, port: { kind: 'user', mac } } as const;
        await expect(handle.plug(launch.machine, nic, signal)).rejects.toMatchObject({
          class: 'Unsupported',
        });
        await expect(handle.unplug({ kind: 'nic', name: 'extra' }, signal)).rejects.toMatchObject({
          class: 'Unsupported',
        });
        await endWith(handle);
      });

      it('refuses a spec with disks', async () => {
        const spec = harness.spec({ disks: [{ name: 'data', sizeBytes: 512, readOnly: false }] });
        const id = '0b6a3f4e-3c9f-4d0c-8d52-3f0a1f1f7a11' as GuestId;
        await expect(driver.pin(spec, id, signal)).rejects.toMatchObject({ class: 'Unsupported' });
      });
    };

    const changesDevices = (): void => {
      const withDevices = async (
        launch: Launch,
      ): Promise<{
        readonly machine: PinnedMachine;
        readonly disk: PluggedDevice;
        readonly nic: PluggedDevice;
      }> => {
        const mac = '52:54:00:00:00:09' as MacAddress;
        const spec = harness.spec({
          disks: [...own(launch), 'data'].map((name) => ({ name, sizeBytes: 512, readOnly: false })),
          nics: [{ name: 'extra', network: 'default', mac }],
        });
        const machine = await driver.repin(spec, launch.machine, signal);
        const pinnedDisk = machine.disks.find(({ name }) => name === 'data');
        const [pinnedNic] = machine.nics;
        if (!pinnedDisk || !pinnedNic) throw new Error('repin gives what the spec asks for');
        return {
          machine,
          disk: { kind: 'disk', pinned: pinnedDisk, source: await harness.makeDisk(launch, 'data') },
          nic: { kind: 'nic', pinned: pinnedNic, port: { kind: 'user', mac } },
        };
      };
      const names = async (handle: GuestHandle): Promise<readonly string[]> => {
        const { disks, nics } = await handle.devices(signal);
        return [...disks].concat([...nics]).toSorted();
      };
      const own = ({ machine }: Launch): readonly string[] => machine.disks.map(({ name }) => name);

      it('are plugged, also twice, and known to whoever takes the guest over', async () => {
        const launch = await harness.makeLaunch('idle');
        const { machine, disk, nic } = await withDevices(launch);
        expect(driver.hotplugs(machine)).toBe(true);
        const handle = await run(launch, 'idle');
        expect(await names(handle)).toEqual(own(launch));
        for (const device of [disk, nic, disk, nic]) await handle.plug(machine, device, signal);
        expect(await names(handle)).toEqual([...own(launch), 'data', 'extra'].toSorted());
        await handle.disks?.resizeDisk('data', 2 * 1024 ** 2, signal);
        await handle.disks?.resizeDisk('data', 2 * 1024 ** 2, signal);
        await handle.release();
        const again = await attachWith(launch, witness.cursor, harness.driver());
        await again.plug(machine, disk, signal);
        expect(await names(again)).toEqual([...own(launch), 'data', 'extra'].toSorted());
        await endWith(again);
      });

      it('are unplugged once the guest has let go, also twice, and can come back', async () => {
        const launch = await harness.makeLaunch('idle');
        const { machine, disk, nic } = await withDevices(launch);
        const handle = await run(launch, 'idle');
        for (const device of [disk, nic]) await handle.plug(machine, device, signal);
        await harness.answerUnplug(launch, handle, 'ignores');
        const given = new AbortController();
        const waiting = [disk, nic].map((device) =>
          handle.unplug({ kind: device.kind, name: device.pinned.name }, given.signal),
        );
        const all = Promise.allSettled(waiting);
        // Answers come in order: after the second both have been asked, and have let go of nothing.
        await names(handle);
        expect(await names(handle)).toEqual([...own(launch), 'data', 'extra'].toSorted());
        given.abort(new Error('given up'));
        expect((await all).map((one) => one.status === 'rejected' && String(one.reason))).toEqual([
          'Error: given up',
          'Error: given up',
        ]);
        const unplugged = [disk, nic].map((device) =>
          handle.unplug({ kind: device.kind, name: device.pinned.name }, signal),
        );
        await harness.answerUnplug(launch, handle, 'consents');
        await Promise.all(unplugged);
        expect(await names(handle)).toEqual(own(launch));
        await handle.unplug({ kind: 'disk', name: 'data' }, signal);
        await handle.unplug({ kind: 'nic', name: 'extra' }, signal);
        for (const device of [disk, nic]) await handle.plug(machine, device, signal);
        expect(await names(handle)).toEqual([...own(launch), 'data', 'extra'].toSorted());
        await endWith(handle);
      });

      it('and media are changed in its drives, each change also twice', async () => {
        const launch = await harness.makeLaunch('idle', { cdroms: [{ name: 'cdrom0' }] });
        expect(launch.machine.cdroms).toHaveLength(1);
        const handle = await run(launch, 'idle');
        const disc = { ...(await harness.makeDisk(launch, 'disc')), readOnly: true };
        const other = { ...(await harness.makeDisk(launch, 'other')), readOnly: true };
        for (const medium of [disc, disc, other, undefined, undefined, disc])
          await handle.disks?.setMedium('cdrom0', medium, { force: false, signal });
        expect(await handle.queryState(signal)).toEqual({ state: 'running' });
        await endWith(handle);
      });

      it('are waited for no longer than the process lives', async () => {
        const launch = await harness.makeLaunch('idle');
        const { machine, disk } = await withDevices(launch);
        const handle = await run(launch, 'idle');
        await handle.plug(machine, disk, signal);
        await harness.answerUnplug(launch, handle, 'ignores');
        const [waiting] = await Promise.allSettled([
          handle.unplug({ kind: 'disk', name: 'data' }, signal),
          handle.kill(signal),
        ]);
        expect(waiting).toMatchObject({ status: 'rejected', reason: { class: 'Unavailable' } });
        await expect(handle.plug(machine, disk, signal)).rejects.toMatchObject({ class: 'Unavailable' });
        await handle.release();
      });
    };

    describe('devices of a live guest', () => {
      if (hasDevices) changesDevices();
      else refusesDevices();
    });

    /** Resolves when the guest's own code runs, by what it says on its console. */
    const booted = async (handle: GuestHandle, launch: Launch): Promise<void> => {
      const said = async (): Promise<boolean> =>
        (await driver.readLog(launch.place, 'console', { maxBytes: 65_536 })).text.includes(harness.banner);
      await expect.poll(said, { interval: 20, timeout: 60_000 }).toBe(true);
      expect(await driver.probe(launch.place)).toBe('alive');
      expect(handle.process.pid).toBeGreaterThan(0);
    };
  });
};

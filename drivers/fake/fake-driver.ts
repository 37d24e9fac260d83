/** A driver without processes, for tests of what uses a driver: every rule of the contract, on a host in memory. */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import { type GuestId, MEBIBYTE } from '../../protocol/types.ts';
import type { Driver, FoundProcess, GuestPlace, PinnedMachine } from '../driver.ts';
import { FakeGuest, fakeVerbs } from './fake-guest.ts';
import { FakeHost, unavailable } from './fake-host.ts';

const MACHINE_TYPE = 'fake-1';

export interface FakeDriverOptions {
  readonly host?: FakeHost;
  /** `fake` by default; another name lets it stand for that driver. */
  readonly name?: GuestSpec['driver'];
}

export class FakeDriver implements Driver {
  readonly name: GuestSpec['driver'];
  readonly verbs = fakeVerbs;
  readonly nicEnd: Driver['nicEnd'];
  readonly host: FakeHost;
  readonly #handles = new Map<string, FakeGuest>();

  constructor(options: FakeDriverOptions = {}) {
    this.host = options.host ?? new FakeHost();
    this.name = options.name ?? 'fake';
    this.nicEnd = this.name === 'lxc' ? 'veth' : 'tap';
  }

  async pin(...[spec, id, signal]: Parameters<Driver['pin']>): Promise<PinnedMachine> {
    signal.throwIfAborted();
    if (spec.machine.startsWith('unsupported')) {
      throw new RoostError('Unsupported', `There is no machine ${spec.machine}`, { hint: 'Use q35.' });
    }
    if (spec.program)
      throw new RoostError('Unsupported', 'A pretended guest runs no program of an image', {
        hint: 'Use the driver qemu.',
      });
    return fit(spec, {
      formatVersion: 1,
      type: MACHINE_TYPE,
      cpuModel: spec.cpu.model,
      disks: [],
      nics: [],
      settings: { id, next: 0 },
    });
  }

  async repin(...[spec, machine, signal]: Parameters<Driver['repin']>): Promise<PinnedMachine> {
    signal.throwIfAborted();
    return fit(spec, machine);
  }

  async needsTree(): Promise<boolean> {
    return this.host.needsTree;
  }

  hotplugs(machine: PinnedMachine): boolean {
    return this.host.behaviour(machine.settings['id'] as GuestId).fixed !== true;
  }

  overheadBytes(): number {
    return MEBIBYTE;
  }

  runObjects(...[{ runDirectory }, { agent }]: Parameters<Driver['runObjects']>): readonly HostObject[] {
    return [
      { kind: 'process', name: `${runDirectory}/process.lock` },
      { kind: 'socket', name: `${runDirectory}/monitor.sock` },
      ...(agent ? [{ kind: 'socket', name: `${runDirectory}/agent.sock` } as const] : []),
    ];
  }

  async plan(...[launch, signal]: Parameters<Driver['plan']>): ReturnType<Driver['plan']> {
    signal.throwIfAborted();
    const disks = launch.disks.map(({ path }) => `disk=${path}`);
    const root = launch.boot.kind === 'root' ? [`root=${launch.boot.root.directory}`] : [];
    const seed = launch.seed === undefined ? [] : [`seed=${launch.seed.path}`];
    const argv = ['fake', launch.name, ...root, ...disks, ...seed];
    return { argv, objects: this.runObjects(launch.place, launch) };
  }

  async launch(...[launch, context]: Parameters<Driver['launch']>): ReturnType<Driver['launch']> {
    const { host } = this;
    const { place } = launch;
    context.signal.throwIfAborted();
    if (host.isAlive(place.id)) {
      throw new RoostError('FailedPrecondition', `Guest ${launch.name} has a live process already`, {
        data: { guest: launch.name },
        hint: 'Stop it first.',
      });
    }
    await host.before('launch', place.id, context.signal);
    const { launchFails, crashesAfterLaunch } = host.behaviour(place.id);
    const words = launchFails ?? launch.qemu.extraArgs[0]?.argument;
    if (words !== undefined) {
      throw new RoostError('HostError', `The fake guest ended at once: ${words}`, { data: { said: words } });
    }
    const handle = this.#remember(
      place,
      new FakeGuest(host, place.id, host.spawn(launch, this.name), 0, context.observe),
    );
    if (crashesAfterLaunch !== undefined) host.crash(place.id, crashesAfterLaunch);
    return handle;
  }

  async probe({ id }: GuestPlace): ReturnType<Driver['probe']> {
    return this.host.behaviour(id).probe ?? (this.host.isLocked(id) ? 'alive' : 'gone');
  }

  async attach(...[place, context]: Parameters<Driver['attach']>): ReturnType<Driver['attach']> {
    const { host } = this;
    await host.before('attach', place.id, context.signal);
    const process = host.process(place.id);
    if (!process || process.end) {
      throw new RoostError('NotFound', `Guest ${place.id} has no live process`, { hint: 'Start it.' });
    }
    await this.#handles.get(place.id)?.release();
    if (process.silent !== undefined) {
      context.observe({ kind: 'silent', reason: process.silent, since: host.now() }, context.cursor);
      throw unavailable(process.silent);
    }
    return this.#remember(place, new FakeGuest(host, place.id, process, context.cursor, context.observe));
  }

  async awaitAnswer(...[{ id }, { signal }]: Parameters<Driver['awaitAnswer']>): Promise<void> {
    for (;;) {
      const process = this.host.process(id);
      if (!process || process.end)
        throw new RoostError('NotFound', `Guest ${id} has no live process`, { hint: 'Start it.' });
      if (process.silent === undefined) return;
      const changed = deferred<void>();
      const stop = process.onChange(changed.resolve);
      await waitOrAbort(changed.promise, signal).finally(stop);
    }
  }

  async destroy({ id }: GuestPlace, signal: AbortSignal): Promise<void> {
    await this.host.before('kill', id, signal);
    this.host.endAsked(id);
  }

  async autopsy(...[place, context]: Parameters<Driver['autopsy']>): ReturnType<Driver['autopsy']> {
    context.signal.throwIfAborted();
    this.#refuseAlive(place);
    const process = this.host.process(place.id);
    if (!process) return { cause: 'unknown', at: this.host.now() };
    const guest = new FakeGuest(this.host, place.id, process, context.cursor, context.observe);
    return await waitOrAbort(guest.ended, context.signal);
  }

  async clear(place: GuestPlace): Promise<void> {
    this.#refuseAlive(place);
    this.host.clear(place.id);
  }

  async readLog(...[place, stream, range]: Parameters<Driver['readLog']>): ReturnType<Driver['readLog']> {
    const bytes = Buffer.from(this.#logOf(place, stream));
    const offset = Math.min(range.offset ?? Math.max(0, bytes.length - range.maxBytes), bytes.length);
    const part = bytes.subarray(offset, offset + range.maxBytes);
    return { text: part.toString(), offset, nextOffset: offset + part.length, sizeBytes: bytes.length };
  }

  async readTranscript(
    ...[{ id }, { after, limit }]: Parameters<Driver['readTranscript']>
  ): ReturnType<Driver['readTranscript']> {
    const said = this.host.said(id);
    const entries = after === undefined ? said.slice(-limit) : said.slice(after, after + limit);
    const unanswered = [...(this.host.process(id)?.unanswered ?? [])];
    return {
      entries,
      unanswered: unanswered.map(({ name, at }) => ({ name, at, ageMs: this.host.now() - at })),
    };
  }

  async processes(): Promise<readonly FoundProcess[]> {
    return this.host.processes(this.name, (place) => `${place.runDirectory}/process.lock`);
  }

  async inspect({ runDirectory }: Parameters<Driver['inspect']>[0]): Promise<readonly HostObject[]> {
    return this.host.objects(this.name, runDirectory, (place, parts) => this.runObjects(place, parts));
  }

  #logOf({ id }: GuestPlace, stream: Parameters<Driver['readLog']>[1]): string {
    const process = this.host.process(id);
    switch (stream) {
      case 'console':
        return process?.consoleLog ?? '';
      case 'process':
        return process?.end?.detail ?? '';
      case 'events':
        return (process?.events ?? []).map((event) => `${JSON.stringify(event)}\n`).join('');
      case 'program':
        return '';
    }
  }

  #remember({ id }: GuestPlace, handle: FakeGuest): FakeGuest {
    this.#handles.set(id, handle);
    void handle.ended.then(() => {
      if (this.#handles.get(id) === handle) this.#handles.delete(id);
    });
    return handle;
  }

  #refuseAlive({ id }: GuestPlace): void {
    if (!this.host.isAlive(id)) return;
    throw new RoostError('FailedPrecondition', `Guest ${id} has a live process`, { hint: 'Stop it first.' });
  }
}

export const fakeDriver = (options?: FakeDriverOptions): FakeDriver => new FakeDriver(options);

/** Devices keep what they have; new ones get the next number. */
const fit = (spec: GuestSpec, machine: PinnedMachine): PinnedMachine => {
  let next = Number(machine.settings['next']);
  const take = (): number => {
    next += 1;
    return next - 1;
  };
  const disks = spec.disks.map((disk, index) => {
    const name = disk.name ?? `disk${index}`;
    const before = machine.disks.find((other) => other.name === name);
    if (before) return before;
    const number = take();
    return { name, serial: `fake-${number}`, address: `slot${number}` };
  });
  const nics = spec.nics.map((nic, index) => {
    const name = nic.name ?? `nic${index}`;
    const before = machine.nics.find((other) => other.name === name);
    const mac = nic.mac ?? before?.mac;
    if (mac === undefined) throw new RoostError('Internal', `NIC ${name} has no MAC address`);
    return { name, mac, address: before?.address ?? `slot${take()}` };
  });
  const cdroms = spec.cdroms.map(({ name }, index) => ({
    name: name ?? `cdrom${index}`,
    address: `drive${index}`,
  }));
  return {
    ...machine,
    cpuModel: spec.cpu.model,
    disks,
    nics,
    ...(cdroms.length === 0 ? {} : { cdroms }),
    settings: { ...machine.settings, next },
  };
};

/** The handle of a fake guest: follows the events of its process from a cursor on, as the real one does. */
import { Duplex } from 'node:stream';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId } from '../../protocol/types.ts';
import {
  type DeviceName,
  type DeviceNames,
  type GuestDisks,
  type GuestEnd,
  type GuestHandle,
  type GuestLimits,
  guestVerbs,
  type ObservedState,
  type Observer,
  type PinnedMachine,
  type PluggedDevice,
} from '../driver.ts';
import {
  type FakeCall,
  type FakeHost,
  type FakeProcess,
  type SilentReason,
  unavailable,
} from './fake-host.ts';

/** It has no memory that could be another's as well. */
export const fakeVerbs: GuestHandle['verbs'] = new Set(guestVerbs.filter((verb) => verb !== 'fork'));

export class FakeGuest implements GuestHandle {
  readonly init = undefined;
  readonly teller = undefined;
  readonly disks: GuestDisks = {
    resizeDisk: (...all) => this.#resizeDisk(...all),
    setMedium: (...all) => this.#setMedium(...all),
  };
  /** A pretended machine has what it was made with; what a container may use is its host's to say. */
  readonly setLimits?: NonNullable<GuestHandle['setLimits']>;
  readonly ended: Promise<GuestEnd>;
  readonly verbs = fakeVerbs;
  readonly #id: GuestId;
  readonly #host: FakeHost;
  readonly #process: FakeProcess;
  readonly #observe: Observer;
  readonly #end = deferred<GuestEnd>();
  readonly #stopListening: () => void;
  readonly #consoles = new Set<Duplex>();
  #cursor: number;
  #toldSilence: SilentReason | undefined;
  #released = false;

  constructor(host: FakeHost, id: GuestId, process: FakeProcess, cursor: number, observe: Observer) {
    this.#host = host;
    this.#id = id;
    this.#process = process;
    this.#cursor = Math.min(cursor, process.events.length);
    this.#observe = observe;
    this.ended = this.#end.promise;
    if (process.isContainer) this.setLimits = (...all) => this.#setLimits(...all);
    this.#stopListening = process.onChange(() => this.follow());
    this.follow();
  }

  get agent(): GuestHandle['agent'] {
    return this.#process.agent;
  }

  get process(): GuestHandle['process'] {
    return this.#process.identity;
  }

  get accel(): string {
    return this.#process.accel;
  }

  /** Observes what has happened since. */
  follow(): void {
    if (this.#released) return;
    for (let event = this.#process.events[this.#cursor]; event; event = this.#process.events[this.#cursor]) {
      this.#cursor += 1;
      this.#observe(event, this.#cursor);
    }
    if (this.#toldSilence !== undefined && this.#process.silent === undefined) {
      this.#toldSilence = undefined;
      this.#observe({ kind: 'heard', at: this.#host.now() }, this.#cursor);
    }
    if (this.#process.end) this.#finish(this.#process.end);
  }

  async queryState(signal: AbortSignal): Promise<ObservedState> {
    await this.#host.before('query', this.#id, signal);
    this.#refuseGone();
    this.#tellSilence();
    if (this.#process.silent !== undefined) throw unavailable(this.#process.silent);
    return this.#process.state;
  }

  async resume(signal: AbortSignal): Promise<void> {
    await this.#command('resume', signal);
    if (this.#process.consoleLog === '') this.#process.consoleLog = 'ROOST-FAKE-GUEST\r\n';
    this.#host.setState(this.#process, { state: 'running' });
  }

  async pause(signal: AbortSignal): Promise<void> {
    await this.#command('pause', signal);
    this.#host.setState(this.#process, { state: 'paused', reason: 'user' });
  }

  async reset(signal: AbortSignal): Promise<void> {
    await this.#command('reset', signal);
    this.#process.record({
      kind: 'driver-event',
      event: 'RESET',
      data: { guest: false },
      at: this.#host.now(),
    });
  }

  async requestShutdown(signal: AbortSignal): Promise<void> {
    await this.#command('shutdown', signal);
    const obeys =
      this.#host.behaviour(this.#id).ignoresShutdown !== true && this.#process.state.state === 'running';
    if (obeys) this.#host.powerOff(this.#id);
  }

  async kill(signal: AbortSignal): Promise<void> {
    if (this.#released) throw new RoostError('FailedPrecondition', 'The guest was let go of');
    await this.#host.before('kill', this.#id, signal);
    this.#host.endAsked(this.#id);
    await waitOrAbort(this.ended, signal);
  }

  async devices(signal: AbortSignal): Promise<DeviceNames> {
    await this.#command('query', signal);
    const { disks, nics } = this.#process.devices;
    return { disks: new Set(disks.keys()), nics: new Set(nics) };
  }

  async plug(_machine: PinnedMachine, device: PluggedDevice, signal: AbortSignal): Promise<void> {
    await this.#command('plug', signal);
    if (this.#host.behaviour(this.#id).fixed === true)
      throw new RoostError('Unsupported', 'The machine takes no devices while it runs', {
        hint: 'Stop the guest first.',
      });
    const { disks, nics } = this.#process.devices;
    if (device.kind === 'nic') nics.add(device.pinned.name);
    else if (!disks.has(device.pinned.name)) disks.set(device.pinned.name, device.source.sizeBytes);
  }

  async unplug({ kind, name }: DeviceName, signal: AbortSignal): Promise<void> {
    await this.#command('unplug', signal);
    const devices = kind === 'disk' ? this.#process.devices.disks : this.#process.devices.nics;
    while (devices.has(name) && this.#host.behaviour(this.#id).unplug === 'ignores')
      await this.#changed(signal);
    if (devices.has(name) && this.#host.behaviour(this.#id).unplug === 'refuses')
      throw new RoostError('FailedPrecondition', `The guest refuses to let go of ${kind} ${name}`, {
        hint: 'Stop using it inside the guest.',
      });
    devices.delete(name);
  }

  /** Sends back what it gets. */
  async holdLock(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#refuseGone();
    this.#process.isUnlocked = false;
  }

  async openConsole(signal: AbortSignal): Promise<Duplex> {
    signal.throwIfAborted();
    this.#refuseGone();
    const console: Duplex = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        this.#process.consoleLog += chunk.toString();
        console.push(chunk);
        done();
      },
      final: (done) => {
        console.push(null);
        done();
      },
    });
    this.#consoles.add(console);
    console.once('close', () => this.#consoles.delete(console));
    return console;
  }

  async release(): Promise<void> {
    this.#released = true;
    this.#stopListening();
  }

  async #resizeDisk(name: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    await this.#command('resize', signal);
    const { disks } = this.#process.devices;
    if (!disks.has(name)) throw new RoostError('HostError', `The guest has no disk ${name}`);
    disks.set(name, sizeBytes);
  }

  async #setMedium(
    cdrom: string,
    medium: BlockSource | undefined,
    { force, signal }: { readonly force: boolean; readonly signal: AbortSignal },
  ): Promise<void> {
    await this.#command('medium', signal);
    if (this.#host.behaviour(this.#id).locksDrives === true && !force)
      throw new RoostError('FailedPrecondition', `The guest has locked the drive ${cdrom}`, {
        hint: 'Use force.',
      });
    this.#process.devices.media.set(cdrom, medium?.path);
  }

  async #setLimits(limits: GuestLimits, signal: AbortSignal): Promise<void> {
    await this.#command('limits', signal);
    this.#process.limits = limits;
  }

  /** Waits as long as the monitor is silent; fails when the guest ends meanwhile. */
  async #command(call: FakeCall, signal: AbortSignal): Promise<void> {
    const asked = { name: call, at: this.#host.now() };
    this.#process.unanswered.add(asked);
    this.#host.say(this.#id, { kind: 'command', name: call });
    try {
      await this.#host.before(call, this.#id, signal);
      this.#refuseGone();
      while (this.#process.silent !== undefined) {
        this.#tellSilence();
        await this.#changed(signal);
      }
      this.#host.say(this.#id, { kind: 'reply', name: call, text: '{}' });
    } finally {
      // Given up, it stays unanswered as long as the monitor is silent.
      if (this.#process.silent === undefined || this.#process.end) this.#process.unanswered.delete(asked);
    }
  }

  /** Waits for news of the process; fails when they are of its end. */
  async #changed(signal: AbortSignal): Promise<void> {
    this.#refuseGone();
    const changed = deferred<void>();
    const stop = this.#process.onChange(changed.resolve);
    try {
      await waitOrAbort(changed.promise, signal);
    } finally {
      stop();
    }
    this.#refuseGone();
  }

  #tellSilence(): void {
    const reason = this.#process.silent;
    if (reason === undefined || reason === this.#toldSilence) return;
    this.#toldSilence = reason;
    this.#observe({ kind: 'silent', reason, since: this.#host.now() }, this.#cursor);
  }

  #refuseGone(): void {
    if (this.#process.end) {
      throw new RoostError('Unavailable', 'The process has ended', {
        hint: "Look at the guest's state again.",
      });
    }
  }

  #finish(end: GuestEnd): void {
    this.#stopListening();
    for (const console of this.#consoles) console.push(null);
    this.#end.resolve(end);
  }
}

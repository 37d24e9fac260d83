/** The fake host with its guests called by name, and an account of what daemons did to them. */
import type { Driver, GuestLimits, Launch, ObservedState } from '../../drivers/driver.ts';
import { FakeDriver, type FakeDriverOptions } from '../../drivers/fake/fake-driver.ts';
import { type FakeCall, FakeHost, type Misbehaviour } from '../../drivers/fake/fake-host.ts';
import type { GuestId } from '../../protocol/types.ts';

class NamedDriver extends FakeDriver {
  readonly #told: (launch: Launch) => void;

  constructor(options: FakeDriverOptions, told: (launch: Launch) => void) {
    super(options);
    this.#told = told;
  }

  override launch(...[launch, context]: Parameters<Driver['launch']>): ReturnType<Driver['launch']> {
    this.#told(launch);
    return super.launch(launch, context);
  }
}

export class NamedHost {
  readonly host: FakeHost;
  /** Guests that do not care about the power button. */
  readonly deaf = new Set<string>();
  /** Every call that changes a guest, as `call name`. */
  readonly calls: string[] = [];
  /** Runs ahead of each call: throws to let it fail, returns a promise to hold it up. */
  before: (call: FakeCall, name: string) => void | Promise<void> = () => undefined;
  readonly #launches = new Map<GuestId, Launch>();

  constructor(now: () => number) {
    this.host = new FakeHost(now);
  }

  /** For one daemon; stands for that of another name where one is given. */
  driver(name: Driver['name'] = 'fake'): Driver {
    return new NamedDriver({ host: this.host, name }, (launch) => this.#launched(launch));
  }

  isAlive(name: string): boolean {
    const id = this.#idOf(name);
    return id !== undefined && this.host.isAlive(id);
  }

  /** What the guest was launched with the last time. */
  launchOf(name: string): Launch | undefined {
    const id = this.#idOf(name);
    return id === undefined ? undefined : this.#launches.get(id);
  }

  /** Devices of the guest's live process, sorted; undefined when it has none. */
  devicesOf(
    name: string,
  ): { readonly disks: readonly string[]; readonly nics: readonly string[] } | undefined {
    const id = this.#idOf(name);
    if (id === undefined || !this.host.isAlive(id)) return undefined;
    const devices = this.host.process(id)?.devices;
    return devices && { disks: [...devices.disks.keys()].sort(), nics: [...devices.nics].sort() };
  }

  /** What the guest's live process is held to. */
  limitsOf(name: string): GuestLimits | undefined {
    return this.host.process(this.#require(name))?.limits;
  }

  /** Path of what is in a drive of the guest's live process. */
  mediumOf(name: string, cdrom: string): string | undefined {
    return this.host.process(this.#require(name))?.devices.media.get(cdrom);
  }

  /** What the guest does when it is to let go of a device; `undefined`: it lets go. */
  setUnplug(name: string, unplug: Misbehaviour['unplug']): void {
    this.host.setUnplug(this.#require(name), unplug);
  }

  powerOff(name: string): void {
    this.host.powerOff(this.#require(name));
  }

  kill(name: string): void {
    this.host.kill(this.#require(name));
  }

  tellLate(name: string, observed: ObservedState): void {
    this.host.tellLate(this.#require(name), observed);
  }

  change(name: string, observed: ObservedState): void {
    this.host.change(this.#require(name), observed);
  }

  silence(name: string): void {
    this.host.silence(this.#require(name));
  }

  speak(name: string): void {
    this.host.speak(this.#require(name));
  }

  /** Keeps nothing of a guest that is gone, nor of what was done so far; for tests that have thousands of them. */
  forget(name: string): void {
    const id = this.#require(name);
    this.#launches.delete(id);
    this.host.forget(id);
    this.calls.length = 0;
  }

  /** Probes of the guest cannot tell whether it lives. */
  obscure(name: string): void {
    const id = this.#require(name);
    this.host.misbehaviourOf.set(id, { ...this.host.behaviour(id), probe: 'unknown' });
  }

  /** From now on the guest hears its power button. */
  hearAgain(name: string): void {
    const id = this.#require(name);
    this.host.misbehaviourOf.set(id, { ...this.host.behaviour(id), ignoresShutdown: false });
  }

  #launched(launch: Launch): void {
    const { name, place } = launch;
    this.#launches.set(place.id, launch);
    this.host.misbehaviourOf.set(place.id, {
      ignoresShutdown: this.deaf.has(name),
      before: (call) => {
        if (call === 'query') return undefined;
        this.calls.push(`${call} ${name}`);
        return this.before(call, name);
      },
    });
  }

  #idOf(name: string): GuestId | undefined {
    return [...this.#launches].findLast(([, launch]) => launch.name === name)?.[0];
  }

  #require(name: string): GuestId {
    const id = this.#idOf(name);
    if (id === undefined) throw new Error(`${name} was never launched`);
    return id;
  }
}

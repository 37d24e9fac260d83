/**
 * Stands for a driver that this daemon does not have, so that a guest of it is listed and can be given up. It touches
 * nothing and tells nothing: whatever would need the driver is refused with the reason.
 */
import type { Driver, Probe } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';

type Name = GuestRecord['spec']['driver'];

/** Names that an error lists are of drivers; there are few. */
export const noDriver = (name: string, drivers: Iterable<string>): RoostError =>
  new RoostError('Unsupported', `This daemon has no driver called ${name}`, {
    data: { driver: name, drivers: [...drivers] },
    hint: 'query-host lists the drivers.',
  });

export class AbsentDriver implements Driver {
  readonly name: Name;
  readonly verbs: Driver['verbs'] = new Set();
  readonly nicEnd: Driver['nicEnd'];
  readonly #drivers: readonly string[];

  /** `drivers`: names of those that there are. */
  constructor(name: Name, drivers: Iterable<string>) {
    this.name = name;
    this.nicEnd = name === 'lxc' ? 'veth' : 'tap';
    this.#drivers = [...drivers];
  }

  hotplugs(): boolean {
    return false;
  }

  overheadBytes(): number {
    return 0;
  }

  runObjects(): readonly [] {
    return [];
  }

  async probe(): Promise<Probe> {
    return 'unknown';
  }

  /** What a run left is known to its driver alone, and stays. */
  async clear(): Promise<void> {}

  awaitAnswer(): Promise<never> {
    return this.#refuse();
  }

  readTranscript(): Promise<never> {
    return this.#refuse();
  }

  async processes(): Promise<readonly []> {
    return [];
  }

  async inspect(): Promise<readonly []> {
    return [];
  }

  pin(): Promise<never> {
    return this.#refuse();
  }

  repin(): Promise<never> {
    return this.#refuse();
  }

  plan(): Promise<never> {
    return this.#refuse();
  }

  launch(): Promise<never> {
    return this.#refuse();
  }

  attach(): Promise<never> {
    return this.#refuse();
  }

  destroy(): Promise<never> {
    return this.#refuse();
  }

  autopsy(): Promise<never> {
    return this.#refuse();
  }

  readLog(): Promise<never> {
    return this.#refuse();
  }

  async #refuse(): Promise<never> {
    throw noDriver(this.name, this.#drivers);
  }
}

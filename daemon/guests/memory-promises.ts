/**
 * Memory on its way to guests: a start that was found to fit counts from then on, before it stands in its guest's queue,
 * so that two starts at the same moment are not both given the same memory.
 */
import type { Driver } from '../../drivers/driver.ts';
import { admitMemory, readHostMemory } from '../host-memory.ts';
import type { StoredSpec } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';
import type { GuestRegistry } from './registry.ts';

export interface MemoryDemander {
  readonly name: string;
  readonly spec: StoredSpec;
  readonly driver: Driver;
}

export class MemoryPromises {
  readonly #registry: GuestRegistry;
  readonly #reserveBytes: number;
  readonly #promised = new Set<{ readonly name: string; readonly bytes: number }>();

  /** @param reserveBytes memory kept for the host itself */
  constructor(registry: GuestRegistry, reserveBytes: number) {
    this.#registry = registry;
    this.#reserveBytes = reserveBytes;
  }

  /**
   * Promises what a start needs; to be disposed of once the start stands in the queue. `guest` is the one that starts, if
   * it is in the inventory. Errors: ResourceExhausted with the numbers.
   */
  async promise({ name, spec, driver }: MemoryDemander, guest?: Guest): Promise<Disposable> {
    const memory = await readHostMemory();
    const promise = { name, bytes: spec.memoryBytes + driver.overheadBytes(spec) };
    admitMemory(memory, {
      guest: name,
      neededBytes: promise.bytes,
      committedBytes: this.#registry.committedBytes(guest) + this.#promisedToOthers(name),
      reserveBytes: this.#reserveBytes,
    });
    this.#promised.add(promise);
    return { [Symbol.dispose]: () => this.#promised.delete(promise) };
  }

  /**
   * Promises what a guest that runs is to have besides what it has, where its driver can give it that; nothing for all
   * others. Errors: ResourceExhausted with the numbers.
   */
  async promiseGrowth(guest: Guest, memoryBytes: number): Promise<Disposable | undefined> {
    const { name, handle, status } = guest;
    const bytes = memoryBytes - (status.applied?.memoryBytes ?? memoryBytes);
    if (!handle?.setLimits || bytes <= 0) return undefined;
    admitMemory(await readHostMemory(), {
      guest: name,
      neededBytes: bytes,
      committedBytes: this.#registry.committedBytes() + this.#promisedToOthers(name),
      reserveBytes: this.#reserveBytes,
    });
    const promise = { name, bytes };
    this.#promised.add(promise);
    return { [Symbol.dispose]: () => this.#promised.delete(promise) };
  }

  #promisedToOthers(name: string): number {
    let bytes = 0;
    for (const promise of this.#promised) if (promise.name !== name) bytes += promise.bytes;
    return bytes;
  }
}

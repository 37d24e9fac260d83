/** Work that the host bears only so much of at a time: operations of these kinds wait for their turn, visibly. */
import { availableParallelism } from 'node:os';
import { Lanes } from '../../lib/lanes.ts';
import type { OperationId } from '../../protocol/types.ts';
import type { Operations } from './operations.ts';

export type Limited = 'starts' | 'diskCopies';

const words: Readonly<Record<Limited, readonly [string, string]>> = {
  starts: ['start', 'starts'],
  diskCopies: ['copy of a disk or build of an image', 'copies of disks or builds of images'],
};

export interface LimitsConfig {
  /** Guests that start at the same time; by default twice the host's CPUs. */
  readonly starts?: number | undefined;
  /** Imports, builds and copies of disks at the same time. */
  readonly diskCopies: number;
}

export class Limits {
  readonly #operations: Operations;
  readonly #lanes: Readonly<Record<Limited, Lanes>>;

  constructor(operations: Operations, config: LimitsConfig) {
    this.#operations = operations;
    this.#lanes = {
      starts: new Lanes(config.starts ?? 2 * availableParallelism()),
      diskCopies: new Lanes(config.diskCopies),
    };
    operations.addQueuePlace((id) => this.#place(id));
  }

  /**
   * Does the work in its turn. Resolves with false, and does nothing, when the operation was cancelled while it waited or
   * the daemon stops: then it has an end already, or the next daemon takes it up.
   */
  async inTurn(kind: Limited, id: OperationId, work: () => Promise<void>): Promise<boolean> {
    const signal = this.#operations.signalOf(id);
    let leave: () => void;
    try {
      leave = await this.#lanes[kind].enter(id, signal);
    } catch {
      return false;
    }
    try {
      await work();
      return true;
    } finally {
      leave();
    }
  }

  #place(id: OperationId): { readonly position: number; readonly waitingFor: string } | undefined {
    for (const [kind, lanes] of Object.entries(this.#lanes) as [Limited, Lanes][]) {
      const place = lanes.place(id);
      if (!place) continue;
      const [one, more] = words[kind];
      return {
        position: place.position,
        waitingFor: `${place.ahead} other ${place.ahead === 1 ? one : more}`,
      };
    }
    return undefined;
  }
}

/** A guest that is to go when it has ended: waits for its time, and says when it has come. */
import type { Guest } from './guest.ts';
import { isStart } from './guest-status.ts';

/** Whether nothing is to follow the run that has ended. */
const isOver = (guest: Guest): boolean =>
  !guest.removed &&
  !guest.isLive() &&
  guest.status.restartAt === undefined &&
  guest.record.spec.template === undefined &&
  !guest.unfinished.some(({ kind }) => isStart(kind) || kind === 'guest-delete');

export class DeleteAfterEnd {
  readonly #guest: Guest;
  readonly #due: () => void;
  #cancelTimer: (() => void) | undefined;

  constructor(guest: Guest, due: () => void) {
    this.#guest = guest;
    this.#due = due;
  }

  /** After every end of a run, also one that an earlier daemon saw. */
  arm(): void {
    const { record, status, house } = this.#guest;
    const { deleteAfterEndMs } = record.spec;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    // One whose first start failed has not run, and is at its end all the same.
    const endedAt = status.lastExit?.at ?? (status.state === 'failed' ? status.observedAt : undefined);
    if (deleteAfterEndMs === undefined || endedAt === undefined || !isOver(this.#guest)) return;
    this.#cancelTimer = house.clock.after(endedAt + deleteAfterEndMs - house.clock.now(), () => {
      this.#cancelTimer = undefined;
      if (!house.stopping.aborted && isOver(this.#guest)) this.#due();
    });
  }

  end(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}

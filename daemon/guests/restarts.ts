/** The restart policy of one guest at work: counts, waits, and says when a restart is due. */
import type { GuestEnd } from '../../drivers/driver.ts';
import type { Guest } from './guest.ts';
import { endsWithHost } from './host-stops.ts';
import { decideRestart } from './restart-policy.ts';

export class Restarts {
  readonly #guest: Guest;
  readonly #due: () => void;
  #cancelTimer: (() => void) | undefined;

  constructor(guest: Guest, due: () => void) {
    this.#guest = guest;
    this.#due = due;
  }

  /** After a run, or a try by the policy, has ended: schedules the next try if the policy wants one. */
  afterEnd(run: {
    readonly cause: GuestEnd['cause'];
    readonly programFailed?: boolean;
    readonly ranMs: number;
  }): void {
    const { record, status, house, unfinished } = this.#guest;
    if (endsWithHost(unfinished, house.operations)) return;
    const decision = decideRestart(record.spec.restartPolicy, {
      ...run,
      target: record.target,
      restartCount: status.restartCount,
    });
    if (decision.kind === 'rest') return;
    const { delayMs, attempt } = decision;
    this.#guest.setStatus({ restartCount: attempt, restartAt: house.clock.now() + delayMs });
    house.events.emit({
      event: 'GUEST_RESTART_SCHEDULED',
      data: { guest: this.#guest.id, name: this.#guest.name, delayMs, attempt },
    });
    this.arm();
  }

  /** Waits for a restart that is recorded as due; also one that an earlier daemon recorded. */
  arm(): void {
    const { status, house, removed } = this.#guest;
    if (status.restartAt === undefined || removed) return;
    this.#cancelTimer?.();
    this.#cancelTimer = house.clock.after(status.restartAt - house.clock.now(), () => {
      this.#cancelTimer = undefined;
      if (!house.stopping.aborted) this.#due();
    });
  }

  /** Forgets a restart that was due: somebody asked for something else. */
  silence(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const { status, removed } = this.#guest;
    if (!removed && status.restartAt !== undefined) this.#guest.setStatus({ restartAt: undefined });
  }

  /** An explicit start begins a new count. */
  reset(): void {
    if (this.#guest.status.restartCount > 0) this.#guest.setStatus({ restartCount: 0 });
  }
}

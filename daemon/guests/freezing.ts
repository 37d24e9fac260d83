/**
 * The file systems of one guest, frozen by its agent for a while. A frozen guest can write nothing and so hardly do
 * anything: that it thaws is this module's promise. What is recorded before the guest is asked says since when and until
 * when; whatever becomes of the daemon or of who asked, the guest is told to thaw at that time. An agent that does not
 * take it is told again when it opens its channel, when it answers anything, and at intervals. It is not done in the
 * guest's mailbox, where something may wait for the very guest that waits for its thaw.
 */
import { enter } from '../../lib/account.ts';
import { isRoostError, RoostError, toRoostError } from '../../protocol/errors.ts';
import type { EventData } from '../../protocol/events.ts';
import type { Frozen } from '../../protocol/guest.ts';
import type { Guest } from './guest.ts';

/** How long a thaw that nobody waits for may take. */
const THAW_TIMEOUT_MS = 10_000;
/** An agent that hangs tells nobody when it is back. */
const FIRST_RETRY_MS = 5_000;
const LONGEST_RETRY_MS = 60_000;

type Why = NonNullable<EventData<'GUEST_FSFREEZE_CHANGED'>['why']>;

export interface Asking {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

export class Freezing {
  readonly #guest: Guest;
  #cancelTimer: (() => void) | undefined;
  #retryMs = FIRST_RETRY_MS;
  /** Freezes and thaws that an agent is being asked for. */
  #busy = 0;
  #openings = 0;

  constructor(guest: Guest) {
    this.#guest = guest;
  }

  get frozen(): Frozen | undefined {
    return this.#guest.status.process?.frozen;
  }

  /** A process was taken over, or goes on: one that is frozen is thawed in time. */
  begin(): void {
    this.#openings = this.#guest.agent.openings;
    this.#retryMs = FIRST_RETRY_MS;
    if (this.frozen) this.#wake(this.frozen.thawAt - this.#guest.house.clock.now());
  }

  /** The run is over. */
  end(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** Something is new of the agent. */
  heardAgent(): void {
    const { agent } = this.#guest;
    if (agent.view.state !== 'connected' || !this.frozen || this.#busy > 0) return;
    const isNew = agent.openings !== this.#openings;
    this.#openings = agent.openings;
    if (this.#isDue()) void this.#thawNow('deadline');
    else if (isNew) void this.#look();
  }

  /**
   * Freezes for `forMs` at most. May be done again by a further daemon, which keeps the first deadline. Resolves with the
   * number of file systems, undefined when they were frozen already. Errors: FailedPrecondition when they are about to
   * be thawed, and those of every request.
   */
  async freeze(forMs: number, { signal, timeoutMs }: Asking): Promise<number | undefined> {
    const { agent, name, status } = this.#guest;
    if (status.state !== 'running')
      throw new RoostError('FailedPrecondition', `Guest ${name} is ${status.state}: it can freeze nothing`, {
        data: { guest: name, state: status.state },
        hint: 'Freeze it while it runs.',
      });
    if (this.#isDue())
      throw new RoostError('FailedPrecondition', `The file systems of guest ${name} are being thawed`, {
        data: { guest: name },
        hint: 'Freeze them again when they are.',
      });
    return await this.#whileBusy(async () => {
      const asking = { signal, timeoutMs: Math.min(timeoutMs, forMs) };
      // One that an earlier daemon asked may have done it: an agent refuses a second time.
      const left = this.frozen !== undefined;
      const before = left ? await agent.use((line, limit) => line.freezeStatus(limit), asking) : 'thawed';
      if (before === 'frozen') return undefined;
      if (!left) this.#intend(forMs);
      return await agent.use((line, limit) => line.freeze(limit), asking);
    });
  }

  /** Thaws, also what nobody here has frozen. Resolves with the number of file systems. Errors: of every request. */
  async thaw(why: Why, asking: Asking): Promise<number> {
    const { handle, agent } = this.#guest;
    return await this.#whileBusy(async () => {
      try {
        const count = await agent.use((line, limit) => line.thaw(limit), asking);
        if (handle === this.#guest.handle) this.#thawed(why);
        return count;
      } catch (error) {
        if (handle === this.#guest.handle) this.#failed(error);
        throw error;
      }
    });
  }

  /** Before the guest is asked for something else that it could not do frozen; goes on also when it fails. */
  async letGo(why: Why, signal: AbortSignal): Promise<void> {
    if (!this.frozen) return;
    try {
      await this.thaw(why, { signal, timeoutMs: THAW_TIMEOUT_MS });
      enter({ kind: 'note', text: 'thawed the file systems first' });
    } catch (error) {
      enter({ kind: 'note', text: `could not thaw the file systems first: ${toRoostError(error).message}` });
    }
  }

  /** Takes a freeze back that has failed: at once, or as soon as the agent lets it. */
  async takeBack(timeoutMs: number): Promise<void> {
    const { process } = this.#guest.status;
    if (!process?.frozen) return;
    const now = this.#guest.house.clock.now();
    this.#set({ ...process.frozen, thawAt: Math.min(process.frozen.thawAt, now) });
    await this.#thawNow('undone', Math.min(timeoutMs, THAW_TIMEOUT_MS));
  }

  /** The guest begins anew: what was frozen is no more. */
  forget(why: Why): void {
    if (this.frozen) this.#thawed(why);
  }

  #isDue(): boolean {
    return this.frozen !== undefined && this.frozen.thawAt <= this.#guest.house.clock.now();
  }

  async #whileBusy<T>(work: () => Promise<T>): Promise<T> {
    this.#busy += 1;
    try {
      return await work();
    } finally {
      this.#busy -= 1;
    }
  }

  #intend(forMs: number): void {
    const since = this.#guest.house.clock.now();
    this.#set({ since, thawAt: since + forMs });
    this.begin();
    this.#tell('frozen');
  }

  async #thawNow(why: Why, timeoutMs = THAW_TIMEOUT_MS): Promise<void> {
    const { house, name } = this.#guest;
    if (!this.frozen || house.stopping.aborted) return;
    try {
      await this.thaw(why, { signal: house.stopping, timeoutMs });
    } catch (error) {
      if (house.stopping.aborted) return;
      house.log.warn({ err: error, guest: name }, 'the file systems of the guest could not be thawed');
      if (!this.frozen) return;
      this.#wake(this.#retryMs);
      this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
    }
  }

  /** Another agent, perhaps of a guest that has begun anew: it is asked how things are. */
  async #look(): Promise<void> {
    const { agent, house, name } = this.#guest;
    try {
      const asking = { signal: house.stopping, timeoutMs: THAW_TIMEOUT_MS };
      const status = await agent.use((line, limit) => line.freezeStatus(limit), asking);
      if (status === 'thawed' && this.#busy === 0) this.forget('guest');
    } catch (error) {
      house.log.debug({ err: error, guest: name }, 'the agent did not say whether the guest is frozen');
    }
  }

  #wake(delayMs: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#guest.house.clock.after(Math.max(0, delayMs), () => {
      this.#cancelTimer = undefined;
      void this.#thawNow('deadline');
    });
  }

  #thawed(why: Why): void {
    this.end();
    const { process } = this.#guest.status;
    if (!process?.frozen) return;
    this.#set(undefined);
    this.#tell('thawed', { why });
  }

  #failed(error: unknown): void {
    const { process } = this.#guest.status;
    if (!process?.frozen) return;
    // One that does not know the command has frozen nothing.
    if (isRoostError(error, 'Unsupported')) {
      this.#thawed('guest');
      return;
    }
    const { message } = toRoostError(error);
    if (process.frozen.error === message) return;
    this.#set({ ...process.frozen, error: message });
    this.#tell('frozen', { error: message });
  }

  #set(frozen: Frozen | undefined): void {
    const { process } = this.#guest.status;
    if (!process) return;
    const { frozen: _before, ...rest } = process;
    this.#guest.setStatus({ process: frozen === undefined ? rest : { ...rest, frozen } });
  }

  #tell(status: 'frozen' | 'thawed', more: { readonly why?: Why; readonly error?: string } = {}): void {
    const { house, id, name, removed } = this.#guest;
    if (removed) return;
    const thawAt = this.frozen?.thawAt;
    house.events.emit({
      event: 'GUEST_FSFREEZE_CHANGED',
      data: { guest: id, name, status, ...(thawAt === undefined ? {} : { thawAt }), ...more },
    });
  }
}

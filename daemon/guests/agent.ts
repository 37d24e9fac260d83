/**
 * What is known of the agent in a guest, and the one way to ask it. The state is told by events and by how the last
 * request went, so that a list of guests asks nobody. Every request has a deadline; one that passes makes the agent
 * `silent` until it answers again. Nothing waits for an agent in the guest's mailbox but what is about the agent.
 */
import type { GuestAgent, GuestHandle } from '../../drivers/driver.ts';
import { DeadlineError, deadline, firstOf } from '../../lib/abort.ts';
import type { AgentState } from '../../protocol/agent.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { Guest } from './guest.ts';

/** How long an agent may take for an answer unless the caller says otherwise. */
export const ANSWER_TIMEOUT_MS = 10_000;

export type AgentView = Omit<GuestView['agent'], 'enabled'>;

export class Agent {
  readonly #guest: Guest;
  readonly #changed: () => void;
  #state: AgentState = 'absent';
  #since: number | undefined;
  #version: string | undefined;
  #asking = false;
  #openings = 0;

  /** `changed` is called after every change of what is known. */
  constructor(guest: Guest, changed: () => void) {
    this.#guest = guest;
    this.#changed = changed;
  }

  get view(): AgentView {
    return {
      state: this.#state,
      ...(this.#since === undefined ? {} : { since: this.#since }),
      ...(this.#version === undefined ? {} : { version: this.#version }),
    };
  }

  /** How often the channel was opened: another number is another agent, which has no file or program of the last. */
  get openings(): number {
    return this.#openings;
  }

  /** Another process, or none: what was known of the last one's agent is of no use. */
  took(handle: GuestHandle | undefined): void {
    this.opened(handle?.agent?.isOpen ?? false, this.#guest.house.clock.now());
  }

  /** A program in the guest opened the channel, or closed it. */
  opened(isOpen: boolean, at: number): void {
    this.#become(isOpen ? 'connected' : 'absent', at);
    if (isOpen && this.#version === undefined) void this.#askVersion();
  }

  /**
   * Asks the agent. Errors: FailedPrecondition when the guest does not run or has no channel, Unavailable when no agent
   * has it open or when it did not answer in time, and the agent's own.
   */
  async use<T>(
    ask: (agent: GuestAgent, signal: AbortSignal) => Promise<T>,
    {
      signal,
      timeoutMs = ANSWER_TIMEOUT_MS,
    }: { readonly signal: AbortSignal; readonly timeoutMs?: number | undefined },
  ): Promise<T> {
    const { handle, house } = this.#guest;
    const agent = this.#required(handle);
    using either = firstOf(signal, house.stopping);
    using limit = deadline(timeoutMs, either.signal);
    try {
      const answer = await ask(agent, limit.signal);
      if (handle === this.#guest.handle && agent.isOpen) this.#become('connected', house.clock.now());
      return answer;
    } catch (error) {
      if (!(limit.signal.reason instanceof DeadlineError)) throw error;
      if (handle === this.#guest.handle && agent.isOpen) this.#become('silent', house.clock.now());
      throw this.#silentError(timeoutMs);
    }
  }

  #become(state: AgentState, at: number): void {
    if (state === 'absent') this.#version = undefined;
    if (state !== 'absent' && this.#state === 'absent') this.#openings += 1;
    if (this.#state === state) return;
    this.#state = state;
    this.#since = at;
    this.#changed();
    this.#tell();
  }

  #tell(): void {
    const { id, name, removed } = this.#guest;
    if (removed) return;
    this.#guest.tell({
      event: 'GUEST_AGENT_CHANGED',
      data: {
        guest: id,
        name,
        state: this.#state,
        ...(this.#version === undefined ? {} : { version: this.#version }),
      },
    });
  }

  /** Once for each opening; whether it answers shows in the state. */
  async #askVersion(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const { version } = await this.use((agent, signal) => agent.info(signal), {
        signal: this.#guest.house.stopping,
      });
      if (this.#state === 'absent') return;
      this.#version = version;
      this.#changed();
      this.#tell();
    } catch (error) {
      this.#guest.house.log.debug(
        { err: error, guest: this.#guest.name },
        "the guest's agent did not answer",
      );
    } finally {
      this.#asking = false;
    }
  }

  #required(handle: GuestHandle | undefined): GuestAgent {
    const { name, status } = this.#guest;
    if (!handle) {
      throw new RoostError(
        'FailedPrecondition',
        `Guest ${name} is ${status.state}: there is no agent to ask`,
        {
          data: { guest: name, state: status.state },
          hint: 'Start it first.',
        },
      );
    }
    if (handle.agent) return handle.agent;
    throw new RoostError('FailedPrecondition', `Guest ${name} runs without a channel to an agent`, {
      data: { guest: name },
      hint: 'Give it one with guest-update (agent.enabled), then stop and start it.',
    });
  }

  #silentError(timeoutMs: number): RoostError {
    const { name } = this.#guest;
    return new RoostError('Unavailable', `The agent of guest ${name} did not answer within ${timeoutMs} ms`, {
      data: { guest: name, timeoutMs },
      hint: 'The guest may still do what was asked. Look at the agent in the guest, or wait longer.',
    });
  }
}

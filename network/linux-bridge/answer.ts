/**
 * Waits until the guest of a port has answered ARP at its address. Its own frames tell when it may be time to ask: a
 * lease that it took, an entry that they made in the host's neighbour table. Only `reachable` after a question of ours
 * counts, because any other state may speak of a run before.
 *
 * A guest with a fixed address may never speak of its own accord, and one that has just taken its lease may not listen
 * yet; so what went unanswered is asked again, ever more rarely. Nothing but the guest could tell when it is up.
 */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { linkIndex } from '../../native/index.ts';
import type { PortAnswer, PortSpec } from '../backend.ts';
import type { NeighbourChange } from './neighbour-messages.ts';
import { type NeighbourEvents, neighboursOn, probeNeighbour } from './neighbours.ts';

/** Time until the first question that nothing gave reason for, and between the first and the second. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const LOST_WORD_MS = 10_000;

export interface Asked {
  readonly bridge: string;
  readonly port: PortSpec;
  /** Resolves with whether the guest's lease was taken in this run; false where nobody leases. */
  readonly leased: () => Promise<boolean>;
  /** Calls back when a lease was taken, until the returned function is called. */
  readonly watchLeases: (changed: () => void) => () => void;
}

class Question {
  readonly #asked: Asked;
  readonly #signal: AbortSignal;
  readonly #answered = deferred<string>();
  /** Address under question, while the kernel asks. */
  #underQuestion: string | undefined;
  #pauseMs = FIRST_PAUSE_MS;
  #timer: NodeJS.Timeout | undefined;
  /** The address the guest was last seen at, where none is kept for it. */
  #seenAt: string | undefined;

  constructor(asked: Asked, signal: AbortSignal) {
    this.#asked = asked;
    this.#signal = signal;
  }

  get answered(): Promise<string> {
    return this.#answered.promise;
  }

  begin(): void {
    this.#askLater();
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  /** There is reason to think that the guest is up. */
  readonly hint = (): void => {
    this.#pauseMs = FIRST_PAUSE_MS;
    void this.#ask();
  };

  readonly observe = (change: NeighbourChange): void => {
    const { bridge, port } = this.#asked;
    if (change.linkIndex !== linkIndex(bridge)) return;
    const mine = change.mac === port.mac && (port.ipv4 ?? change.address) === change.address;
    if (change.address === this.#underQuestion) {
      if (change.state === 'reachable' && mine) this.#answered.resolve(change.address);
      else if (change.state === 'failed' || change.state === 'gone' || !mine) this.#unanswered();
      return;
    }
    if (!mine || change.state === 'gone' || change.state === 'failed') return;
    this.#seenAt = change.address;
    this.hint();
  };

  #unanswered(): void {
    this.#underQuestion = undefined;
    this.#askLater();
  }

  #askLater(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(), this.#pauseMs);
    this.#timer.unref();
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }

  async #ask(): Promise<void> {
    if (this.#underQuestion !== undefined || this.#signal.aborted) return;
    const { bridge, port } = this.#asked;
    clearTimeout(this.#timer);
    try {
      const address = port.ipv4 ?? this.#seenAt ?? (await this.#knownAddress());
      if (address === undefined) return this.#askLater();
      if (this.#underQuestion !== undefined) return;
      this.#underQuestion = address;
      // Should the word on it be lost: the kernel has long given up by then.
      this.#timer = setTimeout(() => this.#unanswered(), LOST_WORD_MS);
      this.#timer.unref();
      await probeNeighbour(bridge, address, port.mac, this.#signal);
    } catch {
      // The bridge is gone, or `ip`: whoever mends the network says so.
      if (!this.#signal.aborted) this.#unanswered();
    }
  }

  async #knownAddress(): Promise<string | undefined> {
    const { bridge, port } = this.#asked;
    return (await neighboursOn(bridge, this.#signal)).find(({ mac }) => mac === port.mac)?.address;
  }
}

/** Rejects with the signal's reason only. */
export async function answerOf(
  asked: Asked,
  events: NeighbourEvents,
  signal: AbortSignal,
): Promise<PortAnswer> {
  signal.throwIfAborted();
  const question = new Question(asked, signal);
  const endings = [events.listen(question.observe), asked.watchLeases(question.hint)];
  question.begin();
  try {
    const address = await waitOrAbort(question.answered, signal);
    return { kind: (await asked.leased()) ? 'lease' : 'neighbour', address };
  } finally {
    question.end();
    for (const end of endings) end();
  }
}

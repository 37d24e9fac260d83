/**
 * Whether a guest is up: waits, for as long as a run lasts, until the guest has proven it once, and writes the first
 * proof down. That a process runs proves nothing; see `NetworkBackend.answer` for what does.
 */
import { firstOf } from '../../lib/abort.ts';
import type { Readiness as Proof } from '../../protocol/guest-address.ts';
import type { Guest } from './guest.ts';
import { portSpecs } from './launch-of.ts';

export class Readiness {
  readonly #guest: Guest;
  #waiting: AbortController | undefined;
  /** When what is waited for may have begun: at the start, or at the last reset. */
  #since = 0;

  constructor(guest: Guest) {
    this.#guest = guest;
  }

  /** A process was taken over; one that has proven itself before is asked nothing. */
  begin(since = this.#guest.status.process?.startedAt ?? 0): void {
    this.end();
    const { status, house } = this.#guest;
    if (!status.process || status.process.ready || house.stopping.aborted) return;
    this.#since = since;
    const waiting = new AbortController();
    this.#waiting = waiting;
    const { signal } = firstOf(waiting.signal, house.stopping);
    for (const { network, port } of portSpecs(this.#guest))
      house.networks.answer(network, port, since, signal).then(
        ({ kind, address }) => this.prove({ kind, address, at: house.clock.now() }),
        (error: unknown) => {
          if (!signal.aborted)
            house.log.warn({ err: error, guest: this.#guest.name, nic: port.index }, 'no answer can be had');
        },
      );
  }

  /** The machine begins anew, so that what it has proven holds no longer; one that has yet to prove itself goes on. */
  reset(at: number): void {
    const { process } = this.#guest.status;
    if (!process?.ready) return;
    const { ready: _proof, ...unproven } = process;
    this.#guest.setStatus({ process: unproven });
    this.begin(at);
  }

  /** The guest has other NICs than before: those of now are asked. */
  nicsChanged(): void {
    if (this.#waiting) this.begin(this.#since);
  }

  /** The run is over, or somebody else watches the guest from now on. */
  end(): void {
    this.#waiting?.abort(new Error('the run is over'));
    this.#waiting = undefined;
  }

  /** Something is new of the agent; that it is connected proves nothing, that it has answered does. */
  heardAgent(): void {
    const { state, version } = this.#guest.agent.view;
    if (state === 'connected' && version !== undefined)
      this.prove({ kind: 'agent', at: this.#guest.house.clock.now() });
  }

  /** The first proof of a run counts; a guest whose CPUs stand still has given none, nor has a fork that is not itself yet. */
  prove(proof: Proof): void {
    const { process, applied } = this.#guest.status;
    if (!this.#waiting || !process || process.ready || applied?.renewed === false) return;
    this.end();
    this.#guest.setStatus({ process: { ...process, ready: proof } });
    this.#guest.house.events.emit({
      event: 'GUEST_READY',
      data: {
        guest: this.#guest.id,
        name: this.#guest.name,
        kind: proof.kind,
        ...(proof.address === undefined ? {} : { address: proof.address }),
      },
    });
  }
}

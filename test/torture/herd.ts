/**
 * Thirty guests, what is asked of them at random, and what has to be true of them afterwards. The herd knows nothing of
 * how the daemon works: only what a user may expect who got an answer, or none.
 */
import type { GuestSpecInput, GuestView } from '../../protocol/guest.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { tinyGuest } from '../harness/tiny-guests.ts';
import type { Random } from './random.ts';

export interface Asked {
  readonly name: string;
  readonly command:
    | 'guest-create'
    | 'guest-start'
    | 'guest-stop'
    | 'guest-pause'
    | 'guest-resume'
    | 'guest-reset'
    | 'guest-update'
    | 'guest-delete';
  readonly args: Readonly<Record<string, unknown>>;
}

/** How one request ended: refused before it was accepted, or with an operation. */
export type Outcome =
  | { readonly kind: 'refused'; readonly errorClass: string; readonly message: string }
  | { readonly kind: 'ended'; readonly operation: OperationView };

/** Behaviours of boot sectors that the guests have, by turns; those that reset themselves keep a processor busy. */
export const behaviours = ['acpi', 'idle', 'acpi', 'idle', 'acpi', 'idle', 'acpi', 'reset'] as const;

const verbs = ['guest-start', 'guest-stop', 'guest-pause', 'guest-resume', 'guest-reset'] as const;

/** Ends that may come of what else happens in a round; any other is a defect. */
const excusable: Readonly<Record<string, readonly string[]>> = {
  'guest-create': [],
  // QEMU was killed under it, a stop or a deletion came in between, or the guest is gone.
  'guest-start': ['HostError', 'Unavailable', 'Cancelled', 'FailedPrecondition', 'NotFound'],
  'guest-stop': ['NotFound', 'FailedPrecondition'],
  'guest-pause': ['HostError', 'Unavailable', 'FailedPrecondition', 'NotFound'],
  'guest-resume': ['HostError', 'Unavailable', 'FailedPrecondition', 'NotFound'],
  'guest-reset': ['HostError', 'Unavailable', 'FailedPrecondition', 'NotFound'],
  'guest-update': ['NotFound', 'FailedPrecondition'],
  'guest-delete': [],
};

export class Herd {
  readonly names: readonly string[];
  /** Guests that a user has to find. */
  readonly present = new Set<string>();
  readonly #random: Random;
  #key = 0;

  constructor(size: number, random: Random) {
    this.names = Array.from({ length: size }, (_, index) => `g${String(index).padStart(2, '0')}`);
    this.#random = random;
  }

  /** Requests for one round. Of one guest at most one makes or deletes it, so that what must be there is known. */
  burst(size: number): readonly Asked[] {
    const settled = new Set<string>();
    return Array.from({ length: size }, () => this.#ask(this.#random.pick(this.names), settled));
  }

  /** What is wrong with the outcomes of a round, and takes note of who is there now. */
  judge(outcomes: readonly { readonly asked: Asked; readonly outcome: Outcome }[]): readonly string[] {
    return outcomes.flatMap(({ asked, outcome }) => {
      const error =
        outcome.kind === 'refused'
          ? { class: outcome.errorClass, desc: outcome.message }
          : outcome.operation.error;
      // A guest that is to be started as well answers with its start.
      const kind = outcome.kind === 'refused' ? asked.command : outcome.operation.kind;
      const gone = error?.class === 'NotFound';
      if (asked.command === 'guest-create' && (error === undefined || (kind === 'guest-start' && !gone)))
        this.present.add(asked.name);
      if (asked.command === 'guest-delete' && error === undefined) this.present.delete(asked.name);
      if (error === undefined || (excusable[kind]?.includes(error.class) ?? false)) return [];
      return [`${asked.command} of ${asked.name} ended with ${error.class}: ${error.desc}`];
    });
  }

  /** What is wrong with the guests once nothing is under way; `pids` are the processes that the kernel knows of. */
  inspect(guests: readonly GuestView[], pids: readonly number[]): readonly string[] {
    const found = new Map(guests.map((guest) => [guest.name, guest]));
    const alive = new Set(pids);
    const wrong: string[] = [];
    for (const name of this.present) if (!found.has(name)) wrong.push(`${name} is lost`);
    for (const guest of guests) {
      const { name, state, process } = guest;
      if (!this.present.has(name)) wrong.push(`${name} is there and was deleted`);
      const lives = state === 'running' || state === 'paused';
      if (process !== undefined && !alive.has(process.pid)) wrong.push(`${name} has a process that is gone`);
      if (lives && process === undefined) wrong.push(`${name} is ${state} without a process`);
      if (!lives && process !== undefined) wrong.push(`${name} is ${state} and has a process`);
    }
    const owned = new Set(guests.map((guest) => guest.process?.pid));
    for (const pid of pids) if (!owned.has(pid)) wrong.push(`process ${pid} is no guest's`);
    return wrong;
  }

  #ask(name: string, settled: Set<string>): Asked {
    const random = this.#random;
    const mayMakeOrDelete = !settled.has(name);
    if (!this.present.has(name) && mayMakeOrDelete) {
      settled.add(name);
      return this.#asked(name, 'guest-create', { ...this.#spec(name), start: random.chance(0.7) });
    }
    if (mayMakeOrDelete && random.chance(0.12)) {
      settled.add(name);
      return this.#asked(name, 'guest-delete', { guest: name, force: true });
    }
    if (random.chance(0.05))
      return this.#asked(name, 'guest-update', { guest: name, description: `told ${this.#key} times` });
    const command = random.pick(verbs);
    const guest = { guest: name };
    switch (command) {
      case 'guest-start':
        return this.#asked(name, command, { ...guest, paused: random.chance(0.1) });
      case 'guest-stop':
        return this.#asked(name, command, random.chance(0.6) ? { ...guest, force: true } : guest);
      case 'guest-pause':
      case 'guest-resume':
      case 'guest-reset':
        return this.#asked(name, command, guest);
    }
  }

  #asked(name: string, command: Asked['command'], args: Asked['args']): Asked {
    this.#key += 1;
    return { name, command, args: { ...args, idempotencyKey: `torture-${this.#key}` } };
  }

  #spec(name: string): GuestSpecInput {
    const index = this.names.indexOf(name);
    return tinyGuest(name, behaviours[index % behaviours.length] ?? 'idle', {
      stopTimeoutMs: 2_000,
      ...(index % 3 === 0 ? { nics: [{ network: 'lan' }] } : {}),
      ...(index % 5 === 0
        ? { restartPolicy: { when: 'on-failure', delayMs: 20, maxDelayMs: 100 } as const }
        : {}),
    });
  }
}

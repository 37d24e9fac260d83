/**
 * The serial console of a guest, shared: QEMU serves one client at a time, so the daemon holds that one connection while
 * anybody is attached, and hands the bytes to all. What the guest writes is logged by its own process in any case.
 */
import { type Duplex, Writable } from 'node:stream';
import type { GuestHandle } from '../../drivers/driver.ts';
import { deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import { AttachedOutput, MAX_BEHIND_BYTES } from '../../lib/attached-output.ts';
import type { SessionClosed } from '../../protocol/byte-session.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { SessionLine } from './byte-session.ts';
import type { Guest } from './guest.ts';

const CONNECT_TIMEOUT_MS = 5_000;
/** A process that ends closes its console a moment before it is known to be gone. */
const END_PATIENCE_MS = 2_000;

interface SharedConsole {
  readonly line: Duplex;
  readonly attached: Set<AttachedOutput>;
  /** Settles after the line has closed under those who are attached. */
  readonly ended: Promise<SessionClosed>;
}

export class Consoles {
  readonly #open = new Map<string, Promise<SharedConsole>>();

  /**
   * The console for one more, behind so many bytes of the end of its log. The session that carries it lets go of it.
   * Errors: FailedPrecondition when the guest does not run, Unavailable when its console does not answer.
   */
  async attach(guest: Guest, replayBytes: number, signal: AbortSignal): Promise<SessionLine> {
    const shared = await waitOrAbort(this.#shared(guest), signal);
    const output = new AttachedOutput(() => farBehind(guest));
    shared.attached.add(output);
    const line = lineOf(shared, output);
    try {
      void output.replay([Buffer.from(await writtenBefore(guest, replayBytes))]);
      return line;
    } catch (error) {
      line.release();
      throw error;
    }
  }

  /** The connection that is open or being opened; nobody's own signal ends it for the others. */
  async #shared(guest: Guest): Promise<SharedConsole> {
    for (;;) {
      const opening = this.#open.get(guest.id) ?? this.#begin(guest);
      const shared = await opening;
      if (!shared.line.destroyed) return shared;
      this.#forget(guest, opening);
    }
  }

  #begin(guest: Guest): Promise<SharedConsole> {
    const opening = this.#connect(guest);
    this.#open.set(guest.id, opening);
    opening.then(
      ({ line }) => line.once('close', () => this.#forget(guest, opening)),
      () => this.#forget(guest, opening),
    );
    return opening;
  }

  #forget(guest: Guest, opening: Promise<SharedConsole>): void {
    if (this.#open.get(guest.id) === opening) this.#open.delete(guest.id);
  }

  async #connect(guest: Guest): Promise<SharedConsole> {
    const { handle } = guest;
    if (!handle) throw notOpen(guest);
    using limit = deadline(CONNECT_TIMEOUT_MS, guest.house.stopping);
    const line = await handle.openConsole(limit.signal);
    const attached = new Set<AttachedOutput>();
    const ended = deferred<SessionClosed>();
    ended.promise.catch(() => undefined);
    line.on('data', (chunk: Buffer) => {
      for (const output of attached) output.deliver(chunk);
    });
    line.on('error', () => line.destroy());
    line.on('end', () => line.destroy());
    line.on('close', () => {
      for (const output of attached) output.end();
      if (attached.size > 0) endOf(guest, handle).then(ended.resolve, ended.reject);
    });
    return { line, attached, ended: ended.promise };
  }
}

const writtenBefore = async (guest: Guest, maxBytes: number): Promise<string> =>
  maxBytes === 0 ? '' : (await guest.driver.readLog(guest.place, 'console', { maxBytes })).text;

const lineOf = ({ line, attached, ended }: SharedConsole, output: AttachedOutput): SessionLine => {
  const stdin = new Writable({
    // Done when the guest's side has taken it: a guest that does not read holds up whoever writes to it.
    write: (chunk: Buffer, _encoding, done) => void line.write(chunk, () => done()),
  });
  return {
    stdin,
    stdout: output,
    stderr: undefined,
    ended,
    // A serial line carries bytes alone.
    kill: async () => undefined,
    resize: async () => undefined,
    release: () => {
      attached.delete(output);
      output.destroy();
      stdin.destroy();
      if (attached.size === 0) line.destroy();
    },
  };
};

/** Why a console has closed. Throws RoostError where its guest goes on. */
const endOf = async (guest: Guest, handle: GuestHandle): Promise<SessionClosed> => {
  const ended = deferred<boolean>();
  const cancelTimer = guest.house.clock.after(END_PATIENCE_MS, () => ended.resolve(false));
  void handle.ended.then(() => ended.resolve(true));
  const isGone = await ended.promise.finally(cancelTimer);
  if (guest.heldBy !== undefined) throw lost(guest, 'it goes on in another process');
  if (isGone || (await guest.driver.probe(guest.place)) === 'gone') return { closed: 'guest-ended' };
  throw lost(guest, 'its process has closed it, or cannot be reached');
};

const lost = ({ name }: Guest, why: string): RoostError =>
  new RoostError('Unavailable', `The console of guest ${name} was lost: ${why}`, {
    data: { guest: name },
    hint: 'Attach again; what was missed is in the log of the guest.',
  });

const farBehind = ({ name }: Guest): RoostError =>
  new RoostError(
    'Unavailable',
    `The client was too far behind the console of guest ${name}, and was let go`,
    {
      data: { guest: name, behindBytes: MAX_BEHIND_BYTES },
      hint: 'Attach again; what was missed is in the log of the guest.',
    },
  );

const notOpen = ({ name, status: { state } }: Guest): RoostError => {
  const silent = state === 'unresponsive';
  return new RoostError(
    silent ? 'Unavailable' : 'FailedPrecondition',
    `Guest ${name} is ${state}: its console is not open`,
    {
      data: { guest: name, state },
      hint: `${silent ? 'It is tried again all the time; stop it by force if it stays so' : 'Start it first'}. What it wrote before is in its log.`,
    },
  );
};

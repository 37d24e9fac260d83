/**
 * The serial console of a guest, shared: QEMU serves one client at a time, so the daemon holds that one connection while
 * anybody is attached, and hands the bytes to all. What the guest writes is logged by its own process in any case.
 */
import { Duplex } from 'node:stream';
import { deadline, waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';

/** A reader this far behind is let go rather than kept in memory. */
const MAX_BEHIND_BYTES = 1024 * 1024;
const CONNECT_TIMEOUT_MS = 5_000;

class Attachment extends Duplex {
  readonly #write: (chunk: Buffer, done: () => void) => void;

  constructor(write: (chunk: Buffer, done: () => void) => void) {
    super({ allowHalfOpen: false });
    this.#write = write;
  }

  override _read(): void {
    // The console pushes.
  }

  /** Done when the guest's side has taken it: a guest that does not read holds up whoever writes to it. */
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#write(chunk, () => done());
  }

  deliver(chunk: Buffer): void {
    this.push(chunk);
    if (this.readableLength > MAX_BEHIND_BYTES) this.destroy();
  }
}

interface SharedConsole {
  readonly line: Duplex;
  readonly attached: Set<Attachment>;
}

export class Consoles {
  readonly #open = new Map<string, Promise<SharedConsole>>();

  /** Errors: FailedPrecondition when the guest does not run, Unavailable when its console does not answer. */
  async attach(guest: Guest, signal: AbortSignal): Promise<Duplex> {
    const shared = await waitOrAbort(this.#shared(guest), signal);
    const attachment = new Attachment((chunk, done) => void shared.line.write(chunk, done));
    shared.attached.add(attachment);
    attachment.on('close', () => {
      shared.attached.delete(attachment);
      if (shared.attached.size === 0) shared.line.destroy();
    });
    return attachment;
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
    if (!handle) {
      const silent = guest.status.state === 'unresponsive';
      throw new RoostError(
        silent ? 'Unavailable' : 'FailedPrecondition',
        `Guest ${guest.name} is ${guest.status.state}: its console is not open`,
        {
          data: { guest: guest.name, state: guest.status.state },
          hint: `${silent ? 'It is tried again all the time; stop it by force if it stays so' : 'Start it first'}. What it wrote before is in its log.`,
        },
      );
    }
    using limit = deadline(CONNECT_TIMEOUT_MS, guest.house.stopping);
    const line = await handle.openConsole(limit.signal);
    const attached = new Set<Attachment>();
    line.on('data', (chunk: Buffer) => {
      for (const attachment of attached) attachment.deliver(chunk);
    });
    line.on('error', () => line.destroy());
    line.on('close', () => {
      for (const attachment of attached) attachment.push(null);
    });
    return { line, attached };
  }
}

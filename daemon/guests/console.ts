/**
 * The serial console of a guest, shared: QEMU serves one client at a time, so the daemon holds that one connection while
 * anybody is attached, and hands the bytes to all. What the guest writes is logged by its own process in any case.
 */
import { Duplex } from 'node:stream';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';

/** A reader this far behind is let go rather than kept in memory. */
const MAX_BEHIND_BYTES = 1024 * 1024;

class Attachment extends Duplex {
  readonly #write: (chunk: Buffer) => void;

  constructor(write: (chunk: Buffer) => void) {
    super({ allowHalfOpen: false });
    this.#write = write;
  }

  override _read(): void {
    // The console pushes.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#write(chunk);
    done();
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
    const shared = await this.#shared(guest, signal);
    const attachment = new Attachment((chunk) => void shared.line.write(chunk));
    shared.attached.add(attachment);
    attachment.on('close', () => {
      shared.attached.delete(attachment);
      if (shared.attached.size === 0) shared.line.destroy();
    });
    return attachment;
  }

  #shared(guest: Guest, signal: AbortSignal): Promise<SharedConsole> {
    const open = this.#open.get(guest.id);
    if (open) return open;
    const opening = this.#connect(guest, signal);
    this.#open.set(guest.id, opening);
    opening.catch(() => this.#open.delete(guest.id));
    return opening;
  }

  async #connect(guest: Guest, signal: AbortSignal): Promise<SharedConsole> {
    const { handle } = guest;
    if (!handle)
      throw new RoostError(
        'FailedPrecondition',
        `Guest ${guest.name} is ${guest.status.state}: its console is not open`,
        {
          data: { guest: guest.name, state: guest.status.state },
          hint: 'Start it first; what it wrote before is in its log.',
        },
      );
    const line = await handle.openConsole(signal);
    const attached = new Set<Attachment>();
    line.on('data', (chunk: Buffer) => {
      for (const attachment of attached) attachment.deliver(chunk);
    });
    line.on('error', () => line.destroy());
    line.on('close', () => {
      this.#open.delete(guest.id);
      for (const attachment of attached) attachment.push(null);
    });
    return { line, attached };
  }
}

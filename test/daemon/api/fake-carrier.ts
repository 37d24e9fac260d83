/** A carrier of a session in memory: what was sent is kept, and a test says how much of it the client has not read. */
import type { Duplex } from 'node:stream';
import type { Carrier } from '../../../daemon/api/session.ts';

export interface Message {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: Record<string, unknown>;
  readonly id?: unknown;
  readonly sequence?: number;
  readonly QMP?: object;
}

export class FakeCarrier implements Carrier {
  readonly sent: Message[] = [];
  /** What the client has not read yet; grows by itself while `reads` is false. */
  bufferedBytes = 0;
  reads = true;
  paused = false;
  isClosed = false;
  /** What a carrier does that says for each message when it was sent. */
  afterSend = (): void => undefined;
  streamed: Duplex | undefined;
  #waiting: (() => void)[] = [];

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Message);
    if (!this.reads) this.bufferedBytes += text.length;
    for (const wake of this.#waiting.splice(0)) wake();
    this.afterSend();
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  stream(stream: Duplex): void {
    this.streamed = stream;
  }

  close(): void {
    this.isClosed = true;
  }

  /** Resolves with the first message, from the beginning, that fits. */
  async find(fits: (message: Message) => boolean): Promise<Message> {
    for (let at = 0; ; at += 1) {
      while (at >= this.sent.length) await new Promise<void>((resolve) => this.#waiting.push(resolve));
      const message = this.sent[at];
      if (message && fits(message)) return message;
    }
  }

  get replies(): Message[] {
    return this.sent.filter((message) => 'return' in message || 'error' in message);
  }

  get events(): Message[] {
    return this.sent.filter((message) => 'event' in message);
  }
}

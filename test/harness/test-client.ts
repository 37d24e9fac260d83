/**
 * A client of the daemon's socket for tests: negotiates, calls commands, keeps every event. It waits for replies and
 * events, never for time.
 */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { type Deferred, deferred, waitOrAbort } from '../../lib/abort.ts';
import { JsonValueReader } from '../../lib/json-values.ts';
import type { CommandInput, CommandName, CommandReturn } from '../../protocol/commands.ts';
import { RoostError, type WireError } from '../../protocol/errors.ts';
import type { EventView } from '../../protocol/events.ts';
import { isEnded, type OperationView } from '../../protocol/operation.ts';

interface Reply {
  readonly QMP?: object;
  readonly return?: unknown;
  readonly error?: WireError;
  readonly event?: string;
  readonly id?: number;
}

/** A test that waits in vain is told what it waited for long before its own deadline ends it without a word. */
const PATIENCE_MS = 10_000;

export class TestClient implements AsyncDisposable {
  /** Every event so far, in order. */
  readonly events: EventView[] = [];
  readonly #socket: Socket;
  readonly #calls = new Map<number, Deferred<unknown>>();
  readonly #greeting = deferred<void>();
  #listeners: (() => void)[] = [];
  #lastId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const reader = new JsonValueReader();
    socket.on('data', (chunk: Buffer) => {
      for (const result of reader.push(chunk)) {
        if (result.kind === 'error') throw new Error(result.message);
        this.#receive(result.value as Reply);
      }
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const gone = new RoostError('Unavailable', 'The connection is closed');
      for (const call of this.#calls.values()) call.reject(gone);
      this.#greeting.reject(gone);
    });
  }

  /** Connects, negotiates and subscribes to every event from `since` on. */
  static async connect(socketPath: string, since?: number): Promise<TestClient> {
    const client = new TestClient(createConnection(socketPath));
    await client.#greeting.promise;
    await client.call('qmp_capabilities', {});
    const all = (await client.call('query-schema', {}))['events'] as EventView['event'][];
    await client.call('events-subscribe', { events: all, ...(since === undefined ? {} : { since }) });
    return client;
  }

  /** The answer. Errors: the daemon's own; Unavailable when the connection ends first. */
  async call<N extends CommandName>(name: N, args: CommandInput<N>): Promise<CommandReturn<N>> {
    this.#lastId += 1;
    const answer = deferred<unknown>();
    this.#calls.set(this.#lastId, answer);
    this.#socket.write(JSON.stringify({ execute: name, arguments: args, id: this.#lastId }));
    return (await answer.promise) as CommandReturn<N>;
  }

  /** Asks for a change and waits for its end, however it ends. */
  async finish<N extends CommandName>(name: N, args: CommandInput<N>): Promise<OperationView> {
    const { operation } = (await this.call(name, args)) as { operation: OperationView['id'] };
    return await this.call('operation-wait', { operation });
  }

  /** Like `finish`, and throws unless it ended well. Returns the id of what was changed. */
  async done<N extends CommandName>(name: N, args: CommandInput<N>): Promise<string> {
    const ended = await this.finish(name, args);
    if (isEnded(ended.state) && ended.state === 'succeeded') return ended.subject.id;
    throw ended.error ? RoostError.fromWire(ended.error) : new Error(`${name} ended as ${ended.state}`);
  }

  /** The first event, from the beginning or from index `from`, that fits. */
  async waitForEvent(
    fits: (event: EventView) => boolean,
    signal: AbortSignal = AbortSignal.timeout(PATIENCE_MS),
    from = 0,
  ): Promise<EventView> {
    for (let at = from; ; at += 1) {
      while (at >= this.events.length) {
        const news = new Promise<void>((resolve) => this.#listeners.push(resolve));
        await waitOrAbort(news, signal).catch((error: unknown) => {
          const seen = this.events.map(({ event, data }) => `${event} ${JSON.stringify(data)}`).join('\n  ');
          throw new Error(`None of these fits ${fits.toString()}:\n  ${seen}`, { cause: error });
        });
      }
      const event = this.events[at];
      if (event && fits(event)) return event;
    }
  }

  /** Waits until a guest is in a state; one it has been in before the call counts only if it still is. */
  async waitForState(guest: string, state: string): Promise<void> {
    const from = this.events.length;
    if ((await this.call('query-guest', { guest })).state === state) return;
    await this.waitForEvent(
      ({ event, data }) =>
        event === 'GUEST_STATE_CHANGED' &&
        (data['name'] === guest || data['guest'] === guest) &&
        data['to'] === state,
      undefined,
      from,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.destroyed) return;
    const closed = once(this.#socket, 'close');
    this.#socket.destroy();
    await closed;
  }

  #receive(reply: Reply): void {
    if (reply.QMP) this.#greeting.resolve();
    else if (reply.event !== undefined) {
      this.events.push(reply as unknown as EventView);
      for (const wake of this.#listeners.splice(0)) wake();
    } else if (reply.id !== undefined) {
      const call = this.#calls.get(reply.id);
      this.#calls.delete(reply.id);
      if (reply.error) call?.reject(RoostError.fromWire(reply.error));
      else call?.resolve(reply.return);
    }
  }
}

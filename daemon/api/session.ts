/**
 * One connection of a client, whatever carries it. Commands are done in the order they came, so that a client may send
 * several without waiting; those that may wait long run beside the others if they carry an id. Events are pushed while
 * the client reads; when it falls behind they are read again from the log by sequence, so nothing is skipped or kept in
 * memory for it.
 */
import { setMaxListeners } from 'node:events';
import type { Duplex } from 'node:stream';
import type { Log } from '../../lib/log.ts';
import { working } from '../../lib/loop-watch.ts';
import { isTurnOver } from '../../lib/turn.ts';
import { findCommand } from '../../protocol/commands.ts';
import { RoostError, toRoostError } from '../../protocol/errors.ts';
import { type EventName, eventNames, events } from '../../protocol/events.ts';
import {
  errorReply,
  eventMessage,
  greeting,
  type Request,
  successReply,
  wireTimestamp,
} from '../../protocol/wire.ts';
import { type EventLog, eventView, matches } from '../event-log.ts';
import type { Asker } from '../guests/refusals.ts';
import { inventoryFailure } from '../inventory/database.ts';
import type { EventFilter, KeptEvent } from '../inventory/event-table.ts';
import type { Call, CallSession } from './call.ts';
import type { Dispatch } from './dispatch.ts';
import { type Incoming, readIncoming } from './incoming.ts';

/** What carries a session: a socket, a WebSocket. */
export interface Carrier {
  /** Sends one value. */
  send(text: string): void;
  /** Bytes accepted by `send` that the client has not read yet. */
  readonly bufferedBytes: number;
  /** Stops and resumes reading, to hold back a client that sends faster than it is served. */
  pause(): void;
  resume(): void;
  /** Carries bytes from now on. */
  stream(stream: Duplex): void;
  close(): void;
}

/** Above this, events wait in the log until the client has read. */
const HIGH_WATER_BYTES = 1024 * 1024;
const MAX_QUEUED_REQUESTS = 256;
/** Waits that run beside other commands; a further one holds up its connection until one of them has ended. */
const MAX_WAITS = 256;
/** Events that are replayed before others have their turn. */
const REPLAY_PAGE = 100;

/** A name of the contract; what else a client says is not repeated to others. */
const workName = ({ execute }: Request): string => findCommand(execute)?.name ?? 'an unknown command';

const LIFECYCLE: ReadonlySet<EventName> = new Set(eventNames.filter((name) => events[name].lifecycle));

export interface SessionOptions {
  readonly carrier: Carrier;
  readonly asker: Asker;
  readonly dispatch: Dispatch;
  readonly events: EventLog;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Whether this turn of the event loop is used up; that of all sessions together unless given. */
  readonly isTurnOver?: () => boolean;
}

export class Session implements CallSession {
  readonly #options: SessionOptions;
  readonly #controller = new AbortController();
  readonly #call: Call;
  readonly #isTurnOver: () => boolean;
  readonly #stopListening: () => void;
  readonly #onDaemonStop = (): void => this.#controller.abort(this.#options.signal.reason);
  #queue: Incoming[] = [];
  #serving = false;
  #waits = 0;
  /** The client does not read its replies: nothing more is done for it until it does. */
  #held = false;
  #negotiated = false;
  #streaming = false;
  #filter: EventFilter | undefined;
  /** Sequence of the last event that was sent, or passed over, for this client. */
  #seen: number;
  #behind = false;
  /** A turn for what was missed is on its way. */
  #catchingUp = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#isTurnOver = options.isTurnOver ?? isTurnOver;
    // One for each command under way; how many there are is the client's choice.
    setMaxListeners(0, this.#controller.signal);
    this.#call = { ...options.asker, signal: this.#controller.signal, session: this };
    this.#seen = options.events.lastSequence;
    this.#stopListening = options.events.listen((event) => this.#onEvent(event));
    options.signal.addEventListener('abort', this.#onDaemonStop, { once: true });
    this.#send(greeting);
  }

  /** A JSON value from the client. */
  receive(value: unknown): void {
    this.#enqueue({ kind: 'value', value });
  }

  /** A message of the client that is to be one JSON value, in UTF-8. */
  receiveText(text: Buffer): void {
    this.#enqueue({ kind: 'text', text });
  }

  /** Bytes from the client that are no value. */
  receiveGarbage(message: string): void {
    this.#enqueue({ kind: 'garbage', message });
  }

  /** The carrier has room again. */
  drained(): void {
    if (this.#options.carrier.bufferedBytes > HIGH_WATER_BYTES) return;
    if (this.#behind) this.#catchUpSoon();
    if (!this.#held) return;
    this.#held = false;
    this.#options.carrier.resume();
    if (!this.#serving) this.#serveInTurn();
  }

  /** The connection is closed. */
  closed(): void {
    this.#stopListening();
    this.#options.signal.removeEventListener('abort', this.#onDaemonStop);
    this.#controller.abort(new RoostError('Cancelled', 'The connection was closed'));
    this.#queue = [];
  }

  // CallSession

  negotiate(): void {
    this.#negotiated = true;
    this.#filter = { names: LIFECYCLE };
    this.#seen = this.#options.events.lastSequence;
  }

  subscribe(filter: EventFilter, since: number | undefined): void {
    this.#filter = filter;
    if (since === undefined) return;
    this.#seen = Math.min(since, this.#options.events.lastSequence);
    this.#behind = true;
    // After the reply, which says where the replay ends.
    this.#catchUpSoon();
  }

  becomeStream(stream: Duplex): void {
    this.#streaming = true;
    this.#filter = undefined;
    // Answers to what was sent ahead would be taken for the stream's own bytes.
    this.#queue = [];
    setImmediate(() => {
      this.#stopListening();
      if (this.#controller.signal.aborted) stream.destroy();
      else this.#options.carrier.stream(stream);
    });
  }

  // Inside

  #enqueue(incoming: Incoming): void {
    if (this.#streaming) return;
    this.#queue.push(incoming);
    if (this.#queue.length >= MAX_QUEUED_REQUESTS) this.#options.carrier.pause();
    if (!this.#serving && !this.#held) this.#serveInTurn();
  }

  /**
   * Serves what is queued; returns as soon as one has to be waited for, and goes on after it. A client may send a
   * thousand in one piece, and a hundred clients a few: others have their turn in between.
   */
  #serve(): void {
    this.#serving = true;
    if (this.#holdBack()) return;
    for (let incoming = this.#queue.shift(); incoming; incoming = this.#queue.shift()) {
      if (this.#queue.length === MAX_QUEUED_REQUESTS - 1 && !this.#held) this.#options.carrier.resume();
      const waiting = this.#serveOne(incoming);
      if (waiting) {
        void waiting.then(() => this.#serveInTurn());
        return;
      }
      if (this.#holdBack()) return;
      if (this.#queue.length === 0 || !this.#isTurnOver()) continue;
      setImmediate(() => this.#serve());
      return;
    }
    this.#serving = false;
  }

  #serveOne(incoming: Incoming): Promise<void> | undefined {
    const read = readIncoming(incoming);
    if (read.kind === 'refused') return this.#send(errorReply(read.error.toWire(), read.id));
    return working(workName(read.request), () => this.#answer(read.request));
  }

  #serveInTurn(): void {
    this.#serving = true;
    if (this.#isTurnOver()) setImmediate(() => this.#serve());
    else this.#serve();
  }

  /** Whether serving has to wait until the client has read what was sent to it. */
  #holdBack(): boolean {
    if (this.#options.carrier.bufferedBytes <= HIGH_WATER_BYTES) return false;
    if (!this.#held) this.#options.carrier.pause();
    this.#held = true;
    this.#serving = false;
    return true;
  }

  /** Answers one request. Returns a promise only when the next one has to wait for it. */
  #answer(request: Request): Promise<void> | undefined {
    try {
      this.#requireNegotiation(request);
      const result = this.#options.dispatch.call(request, this.#call);
      if (!(result instanceof Promise)) {
        this.#send(successReply(result, request.id));
        return undefined;
      }
      const answered = result.then(
        (value: unknown) =>
          working(`reply to ${workName(request)}`, () => this.#send(successReply(value, request.id))),
        (error: unknown) => this.#fail(request, error),
      );
      return this.#runsBeside(request, answered) ? undefined : answered;
    } catch (error) {
      this.#fail(request, error);
      return undefined;
    }
  }

  /** Whether the next request need not wait for this one; one that does so is counted until it is answered. */
  #runsBeside(request: Request, answered: Promise<void>): boolean {
    if (request.id === undefined || !this.#options.dispatch.mayWait(request.execute)) return false;
    if (this.#waits >= MAX_WAITS) return false;
    this.#waits += 1;
    void answered.finally(() => {
      this.#waits -= 1;
    });
    return true;
  }

  #requireNegotiation(request: Request): void {
    const negotiating = request.execute === 'qmp_capabilities';
    if (this.#negotiated && negotiating)
      throw new RoostError(
        'CommandNotFound',
        'Capabilities negotiation is already complete, command ignored',
      );
    if (!this.#negotiated && !negotiating)
      throw new RoostError('CommandNotFound', 'Expecting capabilities negotiation with qmp_capabilities', {
        hint: 'Send {"execute": "qmp_capabilities"} first.',
      });
  }

  #fail(request: Request, error: unknown): void {
    const failure = toRoostError(inventoryFailure(error));
    if (failure.class === 'Internal')
      this.#options.log.error({ err: error, command: request.execute }, 'command failed unexpectedly');
    this.#send(errorReply(failure.toWire(), request.id));
  }

  #send(value: object): undefined {
    this.#options.carrier.send(JSON.stringify(value));
  }

  #onEvent(event: KeptEvent): void {
    if (!this.#filter || this.#behind) return;
    if (this.#options.carrier.bufferedBytes > HIGH_WATER_BYTES) {
      this.#behind = true;
      return;
    }
    this.#seen = event.sequence;
    if (matches(this.#filter, event)) this.#send(eventMessage(eventView(event)));
  }

  /** In a turn of its own, and once: a WebSocket says for each message that it was sent, also for those of a replay. */
  #catchUpSoon(): void {
    if (this.#catchingUp) return;
    this.#catchingUp = true;
    setImmediate(() => {
      this.#catchingUp = false;
      if (this.#behind) working('replay of events', () => this.#catchUp());
    });
  }

  /** Reads what was missed from the log, as far as the client takes it. */
  #catchUp(): void {
    const { events, carrier } = this.#options;
    if (!this.#filter || this.#controller.signal.aborted) return;
    this.#reportLoss();
    const page = events.since(this.#seen, REPLAY_PAGE, this.#filter);
    for (const event of page.events) this.#send(eventMessage(eventView(event)));
    this.#seen = Math.max(this.#seen, page.through);
    this.#behind = this.#seen < events.lastSequence;
    // Where the client has to read first, `drained` goes on.
    if (this.#behind && carrier.bufferedBytes <= HIGH_WATER_BYTES) this.#catchUpSoon();
  }

  #reportLoss(): void {
    const lost = this.#options.events.lostAfter(this.#seen);
    if (!lost) return;
    this.#seen = lost.to;
    this.#send({ event: 'EVENTS_LOST', data: lost, timestamp: wireTimestamp(Date.now()), sequence: lost.to });
  }
}

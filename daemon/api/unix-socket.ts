/**
 * The daemon's socket: a stream of JSON values, in QMP's envelope. Whoever may open the file is an administrator, so its
 * mode and group are the access rule; the peer's credentials only name the actor.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { JsonValueReader } from '../../lib/json-values.ts';
import type { Log } from '../../lib/log.ts';
import { working } from '../../lib/loop-watch.ts';
import { peerCredentials } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import { errorReply, MAX_VALUE_BYTES, VALUE_TIMEOUT_MS } from '../../protocol/wire.ts';
import type { EventLog } from '../event-log.ts';
import type { Dispatch } from './dispatch.ts';
import { type Carrier, Session } from './session.ts';

export interface UnixSocketOptions {
  /** Listening descriptor: bound, with mode and group set, before anybody can connect. */
  readonly descriptor: number;
  readonly dispatch: Dispatch;
  readonly events: EventLog;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface ApiServer {
  readonly connections: number;
  close(): Promise<void>;
}

/** Node keeps the descriptor of a socket to itself; there is no public way to it. */
const descriptorOf = (socket: Socket): number =>
  (socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;

const actorOf = (socket: Socket): string => {
  try {
    const { uid, pid } = peerCredentials(descriptorOf(socket));
    return `unix:uid=${uid},pid=${pid}`;
  } catch {
    // The peer may be gone already; what it asked for is answered into the void.
    return 'unix:uid=unknown';
  }
};

const socketCarrier = (socket: Socket, onStream: () => void): Carrier => ({
  send: (text) => {
    if (!socket.destroyed) socket.write(`${text}\n`);
  },
  get bufferedBytes() {
    return socket.writableLength;
  },
  pause: () => void socket.pause(),
  resume: () => void socket.resume(),
  stream: (stream: Duplex) => {
    onStream();
    stream.on('error', () => socket.destroy());
    socket.on('close', () => stream.destroy());
    socket.pipe(stream);
    stream.pipe(socket);
  },
  close: () => socket.destroy(),
});

/** Refuses a value that was begun and not finished in time. */
const watchUnfinished = (
  reader: JsonValueReader,
  refuse: () => void,
): { touched(progressed: boolean): void; clear(): void } => {
  let timer: NodeJS.Timeout | undefined;
  const clear = (): void => {
    clearTimeout(timer);
    timer = undefined;
  };
  return {
    clear,
    touched: (progressed) => {
      if (progressed) clear();
      if (reader.pending > 0) timer ??= setTimeout(refuse, VALUE_TIMEOUT_MS).unref();
    },
  };
};

const serve = (socket: Socket, options: UnixSocketOptions): void => {
  const reader = new JsonValueReader({ maxValueBytes: MAX_VALUE_BYTES });
  const carrier = socketCarrier(socket, () => {
    unfinished.clear();
    socket.off('data', onData);
  });
  const unfinished = watchUnfinished(reader, () => {
    const error = new RoostError(
      'InvalidArgument',
      `A value was not finished within ${VALUE_TIMEOUT_MS / 1000} s`,
    );
    socket.end(`${JSON.stringify(errorReply(error.toWire(), undefined))}\n`);
  });
  const session = new Session({
    carrier,
    asker: { actor: actorOf(socket), role: 'admin' },
    dispatch: options.dispatch,
    events: options.events,
    log: options.log,
    signal: options.signal,
  });
  const onData = (chunk: Buffer): void => {
    const results = working('parsing what a client sent', () => reader.push(chunk));
    for (const result of results)
      if (result.kind === 'value') session.receive(result.value);
      else session.receiveGarbage(result.message);
    unfinished.touched(results.length > 0);
  };
  socket.on('data', onData);
  socket.on('drain', () => session.drained());
  socket.on('error', (error) => options.log.debug({ err: error }, 'connection broke'));
  socket.on('close', () => {
    unfinished.clear();
    session.closed();
  });
};

export const serveUnixSocket = async (options: UnixSocketOptions): Promise<ApiServer> => {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    serve(socket, options);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ fd: options.descriptor }, resolve);
  });
  return {
    get connections() {
      return sockets.size;
    },
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
};

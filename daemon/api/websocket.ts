/**
 * The WebSocket: the same values as the socket, one a text message; for programs that cannot open a UNIX socket. Off
 * unless configured, loopback only, and every client shows a token (RFC 6750 bearer, or `?token=` for browsers).
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import type { Log } from '../../lib/log.ts';
import { RoostError } from '../../protocol/errors.ts';
import { MAX_VALUE_BYTES } from '../../protocol/wire.ts';
import type { EventLog } from '../event-log.ts';
import type { TokenRecord } from '../inventory/token-table.ts';
import type { Tokens } from '../tokens.ts';
import type { Dispatch } from './dispatch.ts';
import { type Carrier, Session } from './session.ts';
import type { ApiServer } from './unix-socket.ts';

export interface WebSocketOptions {
  readonly host: string;
  readonly port: number;
  readonly tokens: Tokens;
  readonly dispatch: Dispatch;
  readonly events: EventLog;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface WebSocketApi extends ApiServer {
  /** The port it got; another than the one asked for when that was 0. */
  readonly port: number;
}

/** A revoked token; RFC 6455 section 7.4.1, policy violation. */
const POLICY_VIOLATION = 1008;
const PATH = '/v1';
/** Whoever is on the host may connect, before a token is shown: they shall not take the daemon's descriptors. */
const MAX_CONNECTIONS = 1024;

/** What a request asks for; a target that is no path asks for nothing. */
const targetOf = (request: IncomingMessage): URL | undefined => {
  const target = request.url ?? '';
  const base = 'http://localhost';
  return target.startsWith('/') && URL.canParse(target, base) ? new URL(target, base) : undefined;
};

const secretOf = (request: IncomingMessage, target: URL): string | undefined => {
  const bearer = /^Bearer\s+(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
  return bearer ?? target.searchParams.get('token') ?? undefined;
};

/** The peer may be gone, or stay: neither is waited for. */
const refuse = (socket: Duplex, status: string): void => {
  socket.on('error', () => socket.destroy());
  socket.once('finish', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
};

const bytesOf = (data: RawData): Buffer =>
  Buffer.isBuffer(data) ? data : Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);

const webSocketCarrier = (client: WebSocket, drained: () => void): Carrier => ({
  send: (text) => {
    if (client.readyState === client.OPEN) client.send(text, () => drained());
  },
  get bufferedBytes() {
    return client.bufferedAmount;
  },
  pause: () => client.pause(),
  resume: () => client.resume(),
  stream: (stream) => {
    client.removeAllListeners('message');
    client.on('message', (data) => {
      if (stream.write(bytesOf(data))) return;
      client.pause();
      stream.once('drain', () => client.resume());
    });
    stream.on('data', (chunk: Buffer) => {
      stream.pause();
      client.send(chunk, () => stream.resume());
    });
    stream.on('error', () => client.terminate());
    stream.on('end', () => client.close());
    stream.on('close', () => client.close());
    client.on('close', () => stream.destroy());
  },
  close: () => client.terminate(),
});

const serve = (client: WebSocket, token: TokenRecord, options: WebSocketOptions): Session => {
  const session: Session = new Session({
    carrier: webSocketCarrier(client, () => session.drained()),
    asker: { actor: `token:${token.name}`, role: token.role },
    dispatch: options.dispatch,
    events: options.events,
    log: options.log,
    signal: options.signal,
  });
  client.on('message', (data, isBinary) => {
    if (isBinary) session.receiveGarbage('a binary message');
    else session.receiveText(bytesOf(data));
  });
  client.on('error', (error) => options.log.debug({ err: error }, 'connection broke'));
  client.on('close', () => session.closed());
  return session;
};

const cannotListen = (error: Error, host: string, port: number): RoostError => {
  const where = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const inUse = 'code' in error && error.code === 'EADDRINUSE';
  const message = inUse ? `${where} is in use` : `${where} cannot be listened on: ${error.message}`;
  return new RoostError('HostError', `The WebSocket cannot be opened: ${message}`, {
    cause: error,
    data: { host, port },
    hint: 'Name another address in websocket.listen of the configuration, or end what listens there.',
  });
};

/** Errors: HostError when the address cannot be had. */
const listen = (server: Server, host: string, port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    server.once('error', (error) => reject(cannotListen(error, host, port)));
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address ? address.port : port);
    });
  });

export const serveWebSocket = async (options: WebSocketOptions): Promise<WebSocketApi> => {
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_VALUE_BYTES,
    perMessageDeflate: false,
  });
  const holders = new Map<WebSocket, { readonly token: string; readonly session: Session }>();
  const server = createServer((_request, response) => {
    response.writeHead(426, { 'content-type': 'text/plain', upgrade: 'websocket' });
    response.end(`This is the WebSocket of roostd: connect to ${PATH} with a token.\n`);
  });
  server.maxConnections = MAX_CONNECTIONS;
  const connections = new Set<Socket>();
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
  });
  server.on('upgrade', (request, socket, head) => {
    const target = targetOf(request);
    if (target?.pathname !== PATH) {
      refuse(socket, '404 Not Found');
      return;
    }
    const secret = secretOf(request, target);
    const token = secret === undefined ? undefined : options.tokens.authenticate(secret);
    if (!token) {
      refuse(socket, '401 Unauthorized');
      return;
    }
    sockets.handleUpgrade(request, socket, head, (client) => {
      holders.set(client, { token: token.name, session: serve(client, token, options) });
      client.on('close', () => holders.delete(client));
    });
  });
  const stopWatching = options.tokens.onRevoked((name) => {
    for (const [client, { token, session }] of holders) {
      if (token !== name) continue;
      // The closing handshake is the client's to draw out: from here on it is not listened to.
      client.removeAllListeners('message');
      session.closed();
      client.close(POLICY_VIOLATION, 'The token was revoked');
    }
  });
  const port = await listen(server, options.host, options.port);
  return {
    port,
    get connections() {
      return holders.size;
    },
    close: async () => {
      stopWatching();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      // All of them: one that never finishes its request would be waited for without end.
      for (const socket of connections) socket.destroy();
      await closed;
    },
  };
};

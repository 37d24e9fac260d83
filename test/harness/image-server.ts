/** A web server on the loopback interface that serves one file, well or badly, and writes down what it was asked. */
import { createHash } from 'node:crypto';
import { statSync, watch } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';

/** Resolves when a file has so many bytes; its directory is there already. */
export const whenFileHas = (path: string, bytes: number): Promise<void> =>
  new Promise((resolve) => {
    const look = (): void => {
      if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) < bytes) return;
      watcher.close();
      resolve();
    };
    const watcher = watch(dirname(path), look);
    look();
  });

/** Resolves when the one file that is downloaded below a directory has so many bytes: what was sent may not be written yet. */
export const whenDownloadHas = async (directory: string, bytes: number): Promise<void> => {
  const below = await readdir(directory, { recursive: true });
  const fetching = below.find((path) => path.endsWith('/fetching'));
  if (fetching === undefined) throw new Error(`Nothing is downloaded below ${directory}`);
  await whenFileHas(join(directory, fetching, 'partial'), bytes);
};

/** How one request is answered; each member departs from what a good server does. */
export interface Manner {
  readonly status?: number;
  readonly location?: string;
  /** Bytes of the body after which the connection is cut. */
  readonly dropAfter?: number;
  /** Bytes of the body after which nothing comes any more; the connection stays. */
  readonly stallAfter?: number;
  readonly ignoresRange?: boolean;
  /** Answers a Range whatever If-Range says. */
  readonly ignoresIfRange?: boolean;
  /** Says nothing of the length. */
  readonly chunked?: boolean;
  /** Announces so many bytes more than there are. */
  readonly announcesMore?: number;
}

export interface Asked {
  readonly path: string;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly authorization: string | undefined;
}

export class ImageServer {
  readonly #server: Server;
  readonly #manners: Manner[] = [];
  readonly asked: Asked[] = [];
  content: Buffer;
  /** Whether responses carry an entity tag of the content. */
  tagged = true;
  lastModified: Date | undefined;
  /** Called with the number of requests so far, ahead of the answer. */
  onAsked: (count: number) => void = () => undefined;
  /** Called when the client of a response that stalls has gone. */
  onLeft: () => void = () => undefined;
  /** Called when a response stalls. */
  onStall: () => void = () => undefined;

  private constructor(content: Buffer, tls: { key: string; cert: string } | undefined) {
    this.content = content;
    const answer = (request: IncomingMessage, response: ServerResponse): void =>
      this.#answer(request, response);
    this.#server = tls ? createTlsServer(tls, answer) : createServer(answer);
  }

  /** Closed when the running test ends. */
  static async start(content: Buffer, tls?: { key: string; cert: string }): Promise<ImageServer> {
    const server = new ImageServer(content, tls);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => server.close());
    return server;
  }

  /** The next requests are answered so, one after another; those after them well. */
  next(...manners: readonly Manner[]): void {
    this.#manners.push(...manners);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  url(path = '/disk.qcow2', scheme = 'http'): string {
    return `${scheme}://127.0.0.1:${this.port}${path}`;
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  #tag(): string {
    return `"${createHash('sha256').update(this.content).digest('hex').slice(0, 16)}"`;
  }

  #rangeOf(request: IncomingMessage, manner: Manner): number | undefined {
    const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
    if (from === undefined || manner.ignoresRange === true) return undefined;
    const condition = request.headers['if-range'];
    const current = [this.#tag(), this.lastModified?.toUTCString()];
    const holds = condition === undefined || current.includes(String(condition));
    return holds || manner.ignoresIfRange === true ? Number(from) : undefined;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const manner = this.#manners.shift() ?? {};
    const { range, authorization } = request.headers;
    const ifRange = request.headers['if-range'];
    this.asked.push({
      path: request.url ?? '',
      range,
      ifRange: ifRange === undefined ? undefined : String(ifRange),
      authorization,
    });
    this.onAsked(this.asked.length);
    if (this.tagged) response.setHeader('ETag', this.#tag());
    if (this.lastModified) response.setHeader('Last-Modified', this.lastModified.toUTCString());
    if (manner.location !== undefined) response.setHeader('Location', manner.location);
    if (manner.status !== undefined) {
      response.writeHead(manner.status).end();
      return;
    }
    const from = this.#rangeOf(request, manner);
    const body = this.content.subarray(from ?? 0);
    if (from !== undefined)
      response.setHeader('Content-Range', `bytes ${from}-${this.content.length - 1}/${this.content.length}`);
    if (manner.chunked !== true)
      response.setHeader('Content-Length', body.length + (manner.announcesMore ?? 0));
    response.writeHead(from === undefined ? 200 : 206);
    this.#sendBody(response, body, manner);
  }

  #sendBody(response: ServerResponse, body: Buffer, manner: Manner): void {
    const { dropAfter, stallAfter } = manner;
    if (dropAfter !== undefined) response.write(body.subarray(0, dropAfter), () => response.destroy());
    else if (stallAfter !== undefined) {
      response.once('close', () => this.onLeft());
      response.write(body.subarray(0, stallAfter), () => this.onStall());
    } else if (manner.announcesMore !== undefined) response.write(body, () => response.destroy());
    else response.end(body);
  }
}

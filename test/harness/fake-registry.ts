/** A registry on the loopback interface that serves the blobs of a layout, well or badly, and writes down what it was asked. */
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import type { Layout, LayoutDescriptor } from './oci-layout.ts';

export interface AskedOfRegistry {
  /** As `manifests/latest` or `blobs/sha256:…`; for the server of tokens `token?…`. */
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly accept: string | undefined;
  /** Of a form. */
  readonly body: string;
}

/** How one request is answered; each member departs from what a good registry does. */
export interface RegistryManner {
  readonly status?: number;
  readonly location?: string;
  /** Bytes of the body after which the connection is cut. */
  readonly dropAfter?: number;
  /** Bytes of the body after which nothing comes any more; the connection stays. */
  readonly stallAfter?: number;
  readonly ignoresRange?: boolean;
  readonly content?: Buffer;
  readonly contentType?: string;
  readonly digest?: string;
  /** Says nothing of the length, and sends so many bytes. */
  readonly endlessBytes?: number;
  /** Waits for this before the body. */
  readonly until?: Promise<void>;
}

export type RegistryAuth =
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  | {
      readonly kind: 'token';
      readonly username?: string;
      readonly password?: string;
      readonly identityToken?: string;
      /** Requests that a token is good for; without end unless given. */
      readonly uses?: number;
      /** Where tokens are had, if not here. */
      readonly realm?: string;
    };

export class FakeRegistry {
  readonly #server: Server;
  readonly #manners = new Map<string, RegistryManner[]>();
  readonly #scheme: string;
  readonly layout: Layout;
  readonly asked: AskedOfRegistry[] = [];
  /** What a tag means. */
  readonly tags = new Map<string, LayoutDescriptor>();
  auth: RegistryAuth | undefined;
  /** So many requests are refused at once: each waits for the others. */
  refusedTogether = 1;
  #refusals: (() => void)[] = [];
  /** Blobs that are under way, and the most at a time. */
  underWay = 0;
  mostUnderWay = 0;
  onStall: () => void = () => undefined;
  #tokens = 0;
  #uses = 0;

  private constructor(layout: Layout, tls: { key: string; cert: string } | undefined) {
    this.layout = layout;
    this.#scheme = tls ? 'https' : 'http';
    const answer = (request: IncomingMessage, response: ServerResponse): void => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => void this.#answer(request, response, Buffer.concat(parts).toString()));
    };
    this.#server = tls ? createTlsServer(tls, answer) : createServer(answer);
  }

  /** Closed when the running test ends. */
  static async start(layout: Layout, tls?: { key: string; cert: string }): Promise<FakeRegistry> {
    const registry = new FakeRegistry(layout, tls);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => registry.close());
    return registry;
  }

  /** Host and port. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get url(): string {
    return `${this.#scheme}://${this.host}`;
  }

  reference(tag = 'latest'): string {
    return `${this.host}/app:${tag}`;
  }

  /** The next requests of a path are answered so, one after another; those after them well. */
  next(path: string, ...manners: readonly RegistryManner[]): void {
    this.#manners.set(path, [...(this.#manners.get(path) ?? []), ...manners]);
  }

  /** Paths that were asked for, without those of tokens. */
  get paths(): readonly string[] {
    return this.asked.map(({ path }) => path).filter((path) => !path.startsWith('token'));
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse, body: string): Promise<void> {
    const url = request.url ?? '';
    const path = url.replace(/^\/v2\/app\//, '').replace(/^\//, '');
    const { range, authorization, accept } = request.headers;
    this.asked.push({ path, range, authorization, accept, body });
    if (path.startsWith('token')) {
      this.#giveToken(response, authorization, body);
      return;
    }
    const manner = this.#manners.get(path)?.shift() ?? {};
    if (manner.status === undefined && !this.#isAuthorized(authorization)) {
      response.setHeader('WWW-Authenticate', this.#challenge());
      this.#refusals.push(() => response.writeHead(401).end());
      if (this.#refusals.length < this.refusedTogether) return;
      for (const refuse of this.#refusals.splice(0)) refuse();
      return;
    }
    if (manner.location !== undefined) response.setHeader('Location', manner.location);
    if (manner.status !== undefined) {
      response.writeHead(manner.status).end();
      return;
    }
    await this.#give(path, range, response, manner);
  }

  async #give(
    path: string,
    range: string | undefined,
    response: ServerResponse,
    manner: RegistryManner,
  ): Promise<void> {
    const [kind, name = ''] = path.split('/');
    const tagged = this.tags.get(name);
    const content = manner.content ?? this.#content(tagged?.digest ?? name);
    if (!content) {
      response.writeHead(404).end();
      return;
    }
    if (kind === 'manifests') {
      response.setHeader(
        'Content-Type',
        manner.contentType ?? tagged?.mediaType ?? 'application/octet-stream',
      );
      const digest = manner.digest ?? tagged?.digest;
      if (digest !== undefined) response.setHeader('Docker-Content-Digest', digest);
    }
    const from = manner.ignoresRange === true ? undefined : /^bytes=(\d+)-$/.exec(range ?? '')?.[1];
    const part = content.subarray(Number(from ?? 0));
    if (from !== undefined)
      response.setHeader('Content-Range', `bytes ${from}-${content.length - 1}/${content.length}`);
    if (manner.endlessBytes === undefined) response.setHeader('Content-Length', part.length);
    response.writeHead(from === undefined ? 200 : 206);
    this.underWay += 1;
    this.mostUnderWay = Math.max(this.mostUnderWay, this.underWay);
    response.once('close', () => {
      this.underWay -= 1;
    });
    await manner.until;
    this.#send(response, part, manner);
  }

  #send(response: ServerResponse, part: Buffer, manner: RegistryManner): void {
    const { dropAfter, stallAfter, endlessBytes } = manner;
    if (endlessBytes !== undefined) sendBytes(response, endlessBytes);
    else if (dropAfter !== undefined) response.write(part.subarray(0, dropAfter), () => response.destroy());
    else if (stallAfter !== undefined) response.write(part.subarray(0, stallAfter), () => this.onStall());
    else response.end(part);
  }

  #content(digest: string): Buffer | undefined {
    try {
      return readFileSync(this.layout.pathOf(digest));
    } catch {
      return undefined;
    }
  }

  #isAuthorized(authorization: string | undefined): boolean {
    const { auth } = this;
    if (!auth) return true;
    if (auth.kind === 'basic') return authorization === basic(auth.username, auth.password);
    if (authorization !== `Bearer token-${this.#tokens}` || this.#tokens === 0) return false;
    this.#uses += 1;
    return this.#uses <= (auth.uses ?? Number.POSITIVE_INFINITY);
  }

  #challenge(): string {
    const { auth } = this;
    if (auth?.kind !== 'token') return 'Basic realm="registry"';
    const realm = auth.realm ?? `${this.url}/token`;
    return `Bearer realm="${realm}",service="test",scope="repository:app:pull"`;
  }

  #giveToken(response: ServerResponse, authorization: string | undefined, body: string): void {
    const auth = this.auth?.kind === 'token' ? this.auth : undefined;
    const isRefused =
      (auth?.username !== undefined && authorization !== basic(auth.username, auth.password ?? '')) ||
      (auth?.identityToken !== undefined &&
        new URLSearchParams(body).get('refresh_token') !== auth.identityToken);
    if (!auth || isRefused) {
      response.writeHead(401).end();
      return;
    }
    this.#tokens += 1;
    this.#uses = 0;
    response.end(JSON.stringify({ token: `token-${this.#tokens}`, expires_in: 60 }));
  }
}

const basic = (username: string, password: string): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;

const CHUNK = Buffer.alloc(64 * 1024, ' ');

/** As fast as the client takes them. */
const sendBytes = (response: ServerResponse, bytes: number): void => {
  let left = bytes;
  const send = (): void => {
    while (left > 0) {
      if (response.destroyed) return;
      left -= CHUNK.length;
      if (!response.write(CHUNK)) {
        response.once('drain', send);
        return;
      }
    }
    response.end();
  };
  send();
};

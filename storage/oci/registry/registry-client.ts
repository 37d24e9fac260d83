/**
 * One server of a registry, and what may be asked of it there: documents and blobs, with the authorization that it wants.
 * Every request is curl's, as an identity that owns nothing; credentials and tokens reach it by standard input, and are
 * kept nowhere. Source: OCI distribution specification 1.1; Docker registry, "Token Authentication Specification".
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Work } from '../../../lib/work.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { removeDirectory } from '../../files/durable-files.ts';
import { saysFull } from '../../files/storage-errors.ts';
import { type DownloadOptions, type DownloadRequest, download } from '../../images/download/download.ts';
import type { ResponseHead } from '../../images/download/response-head.ts';
import type { RegistryCredentials } from '../../pool.ts';
import { malformed, parseJson } from '../manifest.ts';
import { type AuthChallenge, parseChallenges } from './auth-challenge.ts';
import type { Endpoint } from './endpoints.ts';

export interface RegistryClientOptions {
  readonly endpoint: Endpoint;
  /** As library/debian. */
  readonly repository: string;
  readonly credentials: RegistryCredentials | undefined;
  /** Certificate authorities in PEM, instead of the host's. */
  readonly authorities: string | undefined;
  /** Where it works; each request has a directory of its own below it. */
  readonly directory: string;
  readonly download: DownloadOptions;
}

export interface Answer {
  readonly bytes: Buffer;
  readonly head: ResponseHead | undefined;
}

const MAX_TOKEN_BYTES = 1024 ** 2;
/** curl writes the heads of responses, too, under the same limit. */
const MIN_LIMIT_BYTES = 512 * 1024;
const tokenForm = z.object({ token: z.string().optional(), access_token: z.string().optional() });
/** What a field of a request may hold (RFC 9110, 5.5). */
const plainText = /^[\x21-\x7e]+$/;

const basic = ({ username, password }: { username: string; password: string }): string =>
  `Authorization: Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;

export class RegistryClient {
  readonly #options: RegistryClientOptions;
  /** The whole field; undefined before it is known what the server wants. */
  #authorization: string | undefined;
  #asking: Promise<boolean> | undefined;

  constructor(options: RegistryClientOptions) {
    this.#options = options;
  }

  get endpoint(): Endpoint {
    return this.#options.endpoint;
  }

  /** A small document of the repository. `path` begins after its name, as manifests/latest. */
  async document(path: string, accept: readonly string[], maxBytes: number, work: Work): Promise<Answer> {
    let head: ResponseHead | undefined;
    const quiet = { signal: work.signal, progress: () => undefined };
    const found = await this.#get(
      path,
      {
        maxBytes,
        headers: [`Accept: ${accept.join(', ')}`],
        onComplete: (last) => {
          head = last;
        },
      },
      join(this.#options.directory, randomUUID()),
      quiet,
    );
    const bytes = await readFile(found.file);
    await removeDirectory(found.place);
    return { bytes, head };
  }

  /**
   * A file with what is under a digest; it goes on where an earlier call left it. `name` is that of a directory below
   * this client's own, for this file alone.
   */
  async file(
    path: string,
    wanted: { readonly name: string; readonly sizeBytes: number; readonly accept?: readonly string[] },
    work: Work,
  ): Promise<string> {
    const { name, sizeBytes, accept } = wanted;
    const headers = accept ? [`Accept: ${accept.join(', ')}`] : [];
    const place = join(this.#options.directory, name);
    const maxBytes = Math.max(sizeBytes, MIN_LIMIT_BYTES);
    const found = await this.#get(path, { maxBytes, immutable: true, headers }, place, work);
    return found.file;
  }

  async #get(
    path: string,
    request: Pick<DownloadRequest, 'maxBytes' | 'immutable' | 'onComplete'> & {
      readonly headers: readonly string[];
    },
    place: string,
    work: Work,
  ): Promise<{ readonly file: string; readonly place: string }> {
    const { endpoint, repository, authorities } = this.#options;
    const url = `${endpoint.base}/v2/${repository}/${path}`;
    let used: string | undefined;
    const file = await this.#download(
      {
        ...request,
        url,
        shownAs: url,
        authorities,
        hasDigest: false,
        headers: () => {
          used = this.#authorization;
          return [...request.headers, ...(used === undefined ? [] : [used])];
        },
        onUnauthorized: async (head) => {
          // Another request may have been refused at the same time, and have asked meanwhile.
          if (used !== this.#authorization) return true;
          return await this.#authorize(head, work);
        },
      },
      place,
      work,
    );
    return { file, place };
  }

  async #download(request: DownloadRequest, place: string, work: Work): Promise<string> {
    await mkdir(place, { recursive: true, mode: 0o700 });
    try {
      return await download(place, request, this.#options.download, work);
    } catch (error) {
      // Of a document or blob it is known how large it may be; there was room for it.
      const isLarger = saysFull(error) || (error instanceof RoostError && error.data?.['curl'] === 63);
      if (!isLarger) throw error;
      await removeDirectory(place);
      throw malformed(`${request.shownAs} has more than ${request.maxBytes} bytes`);
    }
  }

  /** Several requests may be refused at once; one of them asks. */
  #authorize(head: ResponseHead, work: Work): Promise<boolean> {
    this.#asking ??= this.#answer(head, work).finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #answer(head: ResponseHead, work: Work): Promise<boolean> {
    const challenges = parseChallenges(head.fields.get('www-authenticate') ?? '');
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    const { credentials } = this.#options;
    if (bearer) {
      this.#authorization = `Authorization: Bearer ${await this.#token(bearer, work)}`;
      return true;
    }
    const wantsBasic = challenges.some(({ scheme }) => scheme === 'basic');
    if (!wantsBasic || !credentials || !('username' in credentials)) return false;
    const wasTried = this.#authorization !== undefined;
    this.#authorization = basic(credentials);
    return !wasTried;
  }

  async #token(challenge: AuthChallenge, work: Work): Promise<string> {
    const { directory, authorities, repository, credentials } = this.#options;
    const realm = this.#realm(challenge);
    const query = new URLSearchParams();
    const service = challenge.parameters.get('service');
    if (service !== undefined) query.set('service', service);
    query.set('scope', challenge.parameters.get('scope') ?? `repository:${repository}:pull`);
    const isOauth = credentials !== undefined && 'identityToken' in credentials;
    if (isOauth) {
      query.set('client_id', 'roost');
      query.set('grant_type', 'refresh_token');
      query.set('refresh_token', credentials.identityToken);
    } else for (const [key, value] of query) realm.searchParams.set(key, value);
    const place = join(directory, randomUUID());
    const file = await this.#download(
      {
        url: realm.href,
        shownAs: `${realm.origin}${realm.pathname}`,
        authorities,
        maxBytes: MAX_TOKEN_BYTES,
        hasDigest: false,
        headers: () => (credentials && 'username' in credentials ? [basic(credentials)] : []),
        form: isOauth ? query.toString() : undefined,
      },
      place,
      { signal: work.signal, progress: () => undefined },
    );
    const reply = tokenForm.safeParse(parseJson(await readFile(file), 'the token')).data;
    await removeDirectory(place);
    const token = reply?.token ?? reply?.access_token ?? '';
    if (!plainText.test(token)) throw malformed(`${realm.host} gave no token`);
    return token;
  }

  /** Errors: InvalidArgument where a token would be fetched less safely than the image itself. */
  #realm(challenge: AuthChallenge): URL {
    const text = challenge.parameters.get('realm') ?? '';
    const realm = URL.canParse(text) ? new URL(text) : undefined;
    const { endpoint } = this.#options;
    const isPlainAllowed = endpoint.base.startsWith('http:');
    if (realm?.protocol === 'https:' || (realm?.protocol === 'http:' && isPlainAllowed)) {
      realm.username = '';
      realm.password = '';
      realm.hash = '';
      return realm;
    }
    throw new RoostError(
      'InvalidArgument',
      `${endpoint.registry} asks for a token from a place that is not to be trusted`,
      {
        data: { registry: endpoint.registry, realm: realm ? `${realm.protocol}//${realm.host}` : '' },
        hint: 'Credentials go over https only, unless the registry itself is spoken to without.',
      },
    );
  }
}

/**
 * Images of a registry: its mirrors are asked first, then itself, for each thing anew, so that a mirror that has only a
 * part is of use for that part.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Work } from '../../../lib/work.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { type OciReference, ociReferenceText, parseOciReference } from '../../../protocol/oci-reference.ts';
import { isMissing } from '../../files/durable-files.ts';
import type { DownloadOptions } from '../../images/download/download.ts';
import type { OciOrigin, RegistryCredentials } from '../../pool.ts';
import { digestParts } from '../digest.ts';
import type { ImageOrigin, TopDocument } from '../image-origin.ts';
import { type Descriptor, MAX_MANIFEST_BYTES, malformed } from '../manifest.ts';
import { acceptedManifests, plainType } from '../media-types.ts';
import { credentialsIn } from './auth-file.ts';
import { type Endpoint, endpointsOf, type RegistrySettings } from './endpoints.ts';
import { RegistryClient } from './registry-client.ts';

export interface RegistryOriginOptions {
  readonly directory: string;
  readonly download: DownloadOptions;
  readonly settings: readonly RegistrySettings[];
}

type FromRegistry = OciOrigin & { readonly kind: 'registry' };

/** Larger files of credentials are something else. */
const MAX_AUTH_FILE_CHARACTERS = 1024 ** 2;

const readAuthFile = async (path: string): Promise<string> => {
  try {
    const text = await readFile(path, 'utf8');
    if (text.length <= MAX_AUTH_FILE_CHARACTERS) return text;
  } catch (error) {
    const what = isMissing(error) ? 'there is no such file' : 'it cannot be read';
    throw new RoostError('InvalidArgument', `No credentials from ${path}: ${what}`, {
      data: { path },
      hint: "Give the path as it is on the daemon's host, of a file that its user can read.",
      cause: error,
    });
  }
  throw new RoostError('InvalidArgument', `${path} is too large for a file of credentials`, {
    data: { path },
  });
};

const credentialsFor = async (
  from: FromRegistry,
  { registry, isMirror }: Endpoint,
  repository: string,
): Promise<RegistryCredentials | undefined> => {
  if (from.credentials && !isMirror) return from.credentials;
  if (from.authFile === undefined) return undefined;
  return credentialsIn(await readAuthFile(from.authFile), from.authFile, registry, repository);
};

const DENIED: ReadonlySet<unknown> = new Set([401, 403]);
const TOO_MANY = 429;

/** In words of images instead of URLs. */
const inWordsOfImages = (error: unknown, shownAs: string): unknown => {
  if (!(error instanceof RoostError)) return error;
  const { status } = error.data ?? {};
  const data = { reference: shownAs, ...error.data };
  if (status === 404)
    return new RoostError('NotFound', `There is no image ${shownAs}`, {
      data,
      hint: 'Check name and tag; a private image may be shown only to whom it belongs.',
      cause: error,
    });
  if (DENIED.has(status))
    return new RoostError('InvalidArgument', `The registry does not give out ${shownAs}`, {
      data,
      hint: 'Check the name; for what is private give credentials, with --auth-file or --username.',
      cause: error,
    });
  if (status === TOO_MANY)
    return new RoostError('Unavailable', `The registry has had enough requests for ${shownAs}`, {
      data,
      hint: 'Try again later, give credentials, or name a mirror in the configuration of the daemon.',
      cause: error,
    });
  return error;
};

class RegistryImages implements ImageOrigin {
  readonly #reference: OciReference;
  readonly #clients: readonly RegistryClient[];

  constructor(reference: OciReference, clients: readonly RegistryClient[]) {
    this.#reference = reference;
    this.#clients = clients;
  }

  async top(work: Work): Promise<TopDocument> {
    const { digest, tag = 'latest' } = this.#reference;
    return await this.#ask(async (client) => {
      const path = `manifests/${digest ?? tag}`;
      const { bytes, head } = await client.document(path, acceptedManifests, MAX_MANIFEST_BYTES, work);
      const expected = digest ?? head?.fields.get('docker-content-digest');
      if (expected !== undefined) refuseOther(bytes, expected);
      return { bytes, mediaType: plainType(head?.fields.get('content-type')) };
    });
  }

  async blob(descriptor: Descriptor, isManifest: boolean, work: Work): Promise<string> {
    const { digest, size } = descriptor;
    const path = `${isManifest ? 'manifests' : 'blobs'}/${digest}`;
    const wanted = {
      name: digestParts(digest).hex,
      sizeBytes: size,
      ...(isManifest ? { accept: acceptedManifests } : {}),
    };
    return await this.#ask((client) => client.file(path, wanted, work));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing stays open between requests.
  }

  async #ask<T>(question: (client: RegistryClient) => Promise<T>): Promise<T> {
    const shownAs = ociReferenceText(this.#reference);
    let failure: unknown;
    for (const client of this.#clients) {
      try {
        return await question(client);
      } catch (error) {
        if (!(error instanceof RoostError)) throw error;
        failure = error;
      }
    }
    throw inWordsOfImages(failure, shownAs);
  }
}

/** Small enough for this process. Errors: InvalidArgument. */
const refuseOther = (bytes: Buffer, expected: string): void => {
  const algorithm = expected.startsWith('sha512:') ? 'sha512' : 'sha256';
  const actual = `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
  if (actual !== expected)
    throw malformed(`its manifest has the digest ${actual}, not ${expected.slice(0, 135)}`);
};

export const registryImages = async (
  from: FromRegistry,
  options: RegistryOriginOptions,
): Promise<ImageOrigin> => {
  const reference = parseOciReference(from.reference);
  if (!reference) throw malformed(`${from.reference} is no reference`);
  const endpoints = endpointsOf(reference.registry, {
    plainHttp: from.plainHttp,
    hasAuthorities: from.authorities !== undefined,
    settings: options.settings,
  });
  const clients: RegistryClient[] = [];
  for (const endpoint of endpoints)
    clients.push(
      new RegistryClient({
        endpoint,
        repository: reference.repository,
        credentials: await credentialsFor(from, endpoint, reference.repository),
        // Those are the registry's own; a mirror is somebody else.
        authorities: endpoint.isMirror ? undefined : from.authorities,
        directory: options.directory,
        download: options.download,
      }),
    );
  return new RegistryImages(reference, clients);
};

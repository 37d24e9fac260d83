/**
 * Fetches a file over HTTP into a place that outlives the daemon: cut short by the network, by a kill or by a restart of
 * the daemon, it goes on from the bytes that are there, if the server can tell that they are of the same file.
 *
 *   <place>/begun           the boot in which it was begun: after a power loss nobody knows which bytes were written
 *   <place>/fetching/       where curl works, as an identity that owns nothing else: partial, heads, rest-heads
 *   <place>/source          the file, once it is complete
 */
import { constants } from 'node:fs';
import { chown, lstat, mkdir, open, readFile, rename, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Work } from '../../../lib/work.ts';
import { RoostError } from '../../../protocol/errors.ts';
import type { Confinement } from '../../files/confined-tool.ts';
import { orIfMissing, removeDirectory, removeFiles, settleFile } from '../../files/durable-files.ts';
import { fetchOnce } from './curl.ts';
import { continues, lastHead, type ResponseHead, totalBytesOf, validatorOf } from './response-head.ts';
import { reasonToGiveUp, verdictOn } from './verdict.ts';

export interface DownloadRequest {
  /** With whatever is secret in it. */
  readonly url: string;
  /** Without. */
  readonly shownAs: string;
  /** Certificate authorities in PEM, instead of the host's. */
  readonly authorities?: string | undefined;
  readonly maxBytes: number;
  /** Whether the file will be held against a digest: then it matters less by which ways it comes. */
  readonly hasDigest: boolean;
  /** Whether the URL names these very bytes: then the rest of them needs nothing to be known by. */
  readonly immutable?: boolean | undefined;
  /** Further fields of each request, as `Name: value`; may be secret. */
  readonly headers?: (() => readonly string[]) | undefined;
  /** Sent as a form, by POST; may be secret. */
  readonly form?: string | undefined;
  /** Told of an answer 401; whether `headers` gives better ones now. */
  readonly onUnauthorized?: ((head: ResponseHead) => Promise<boolean>) | undefined;
  /** Told the head of the response that began the file. */
  readonly onComplete?: ((head: ResponseHead) => void) | undefined;
}

export interface DownloadOptions {
  readonly confinement: Confinement;
  /** Milliseconds before the second attempt; doubled for each further one that brings nothing. */
  readonly retryDelayMs: number;
  /** Seconds without a byte after which an attempt is given up. */
  readonly stallSeconds: number;
}

const PARTIAL = 'partial';
const HEADS = 'heads';
const REST_HEADS = 'rest-heads';
const AUTHORITIES = 'authorities.pem';

/** Attempts in a row that bring nothing, those that are refused by 401 alone, and attempts at all. */
const MAX_FAILURES = 5;
const MAX_REFUSALS = 2;
const UNAUTHORIZED = 401;
const MAX_ATTEMPTS = 100;
const MAX_RETRY_DELAY_MS = 30_000;
/** curl keeps to 300 KiB for a response's head. */
const MAX_HEADS_BYTES = 4 * 1024 ** 2;
/** An image must not fill the host. */
const MAX_PART_OF_FREE_SPACE = 0.9;

/** The identity that curl runs as chose what stands under these names. */
const readHead = async (path: string): Promise<ResponseHead | undefined> => {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await orIfMissing(open(path, flags), undefined);
  if (!file) return undefined;
  await using opened = file;
  const { buffer, bytesRead } = await opened.read(Buffer.alloc(MAX_HEADS_BYTES), 0, MAX_HEADS_BYTES, 0);
  return lastHead(buffer.subarray(0, bytesRead).toString('latin1'));
};

const sizeOf = async (path: string): Promise<number> => {
  const found = await orIfMissing(lstat(path), undefined);
  return found?.isFile() === true ? found.size : 0;
};

/** What earlier attempts left: nothing, or a part of a known file. */
interface Begun {
  readonly bytes: number;
  readonly totalBytes?: number | undefined;
  readonly head: ResponseHead;
  readonly validator: string | undefined;
}

class Download {
  readonly #place: string;
  readonly #directory: string;
  readonly #request: DownloadRequest;
  readonly #options: DownloadOptions;
  readonly #work: Work;

  constructor(place: string, request: DownloadRequest, options: DownloadOptions, work: Work) {
    this.#place = place;
    this.#directory = join(place, 'fetching');
    this.#request = request;
    this.#options = options;
    this.#work = work;
  }

  async run(): Promise<string> {
    const source = join(this.#place, 'source');
    if ((await orIfMissing(lstat(source), undefined)) === undefined) {
      await this.#prepare();
      await this.#fetchAll();
      const head = await readHead(join(this.#directory, HEADS));
      if (head) this.#request.onComplete?.(head);
      await rename(join(this.#directory, PARTIAL), source);
    }
    const owner = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
    await settleFile(source, { mode: 0o400, owner });
    await removeDirectory(this.#directory);
    return source;
  }

  async #prepare(): Promise<void> {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    const begun = join(this.#place, 'begun');
    if ((await orIfMissing(readFile(begun, 'utf8'), undefined)) !== boot) {
      await removeDirectory(this.#directory);
      await writeFile(begun, boot);
    }
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const { authorities } = this.#request;
    if (authorities !== undefined)
      await writeFile(join(this.#directory, AUTHORITIES), authorities, { mode: 0o444 });
    const { identity } = this.#options.confinement;
    if (identity) await chown(this.#directory, identity.uid, identity.gid);
  }

  async #begun(): Promise<Begun | undefined> {
    const bytes = await sizeOf(join(this.#directory, PARTIAL));
    const head = await readHead(join(this.#directory, HEADS));
    const validator = head?.status === 200 ? validatorOf(head) : undefined;
    const totalBytes = head && totalBytesOf(head);
    const isKnown = validator !== undefined || this.#request.immutable === true;
    if (bytes === 0 || head?.status !== 200 || !isKnown || bytes > (totalBytes ?? bytes)) return undefined;
    return { bytes, totalBytes, head, validator };
  }

  async #forget(): Promise<void> {
    await removeFiles(this.#directory, [PARTIAL, HEADS, REST_HEADS]);
  }

  async #fetchAll(): Promise<void> {
    const { shownAs } = this.#request;
    let most = 0;
    let failures = 0;
    let refusals = 0;
    for (let attempt = 1; ; attempt += 1) {
      const begun = await this.#begun();
      if (begun && begun.bytes === begun.totalBytes) return;
      if (!begun) await this.#forget();
      const end = await this.#attempt(begun);
      const bytes = await sizeOf(join(this.#directory, PARTIAL));
      refusals = end.status === UNAUTHORIZED ? refusals + 1 : 0;
      if (refusals > 0 && refusals <= MAX_REFUSALS && (await this.#authorized(begun))) continue;
      const verdict = verdictOn(end, bytes > 0 || most > 0, shownAs);
      const isOther = begun !== undefined && bytes > begun.bytes && !(await this.#belongs(begun));
      if (verdict.kind === 'give-up') throw verdict.error;
      if (verdict.kind === 'complete' && !isOther) return;
      if (verdict.kind === 'anew' || isOther) await this.#forget();
      failures = bytes > most && !isOther ? 0 : failures + 1;
      most = Math.max(most, bytes);
      if (failures >= MAX_FAILURES || attempt >= MAX_ATTEMPTS) throw reasonToGiveUp(shownAs, end);
      await this.#waitBeforeNext(failures);
    }
  }

  async #authorized(begun: Begun | undefined): Promise<boolean> {
    const head = await readHead(join(this.#directory, begun ? REST_HEADS : HEADS));
    return head !== undefined && (await this.#request.onUnauthorized?.(head)) === true;
  }

  async #belongs(begun: Begun): Promise<boolean> {
    const head = await readHead(join(this.#directory, REST_HEADS));
    if (this.#request.immutable === true) return head?.status === 206;
    return head !== undefined && continues(head, begun.head);
  }

  async #attempt(begun: Begun | undefined): ReturnType<typeof fetchOnce> {
    const { url, maxBytes, authorities, hasDigest, headers, form } = this.#request;
    const { confinement, stallSeconds } = this.#options;
    const { bavail, bsize } = await statfs(this.#directory);
    const room = Math.floor(bavail * bsize * MAX_PART_OF_FREE_SPACE) + (begun?.bytes ?? 0);
    const fetch = {
      url,
      directory: this.#directory,
      file: PARTIAL,
      heads: begun ? REST_HEADS : HEADS,
      rest: begun && { from: begun.bytes, validator: begun.validator },
      authorities: authorities === undefined ? undefined : AUTHORITIES,
      maxBytes: Math.min(maxBytes, room),
      allowPlainRedirect: hasDigest,
      stallSeconds,
      headers: headers?.(),
      form,
    };
    const tell = this.#teller(begun);
    await tell();
    // Whatever goes wrong with a report is no matter of the download.
    const onTick = (): void => void tell().catch(() => undefined);
    const end = await fetchOnce(fetch, confinement, this.#work.signal, onTick);
    await tell();
    return end;
  }

  /** Reports how far this attempt is, and how fast. */
  #teller(begun: Begun | undefined): () => Promise<void> {
    const startedAt = performance.now();
    const from = begun?.bytes ?? 0;
    return async () => {
      const done = await sizeOf(join(this.#directory, PARTIAL));
      const head = begun?.head ?? (await readHead(join(this.#directory, HEADS)));
      const total = head?.status === 200 ? totalBytesOf(head) : undefined;
      const seconds = (performance.now() - startedAt) / 1000;
      this.#work.progress({
        done,
        ...(total === undefined ? {} : { total: Math.max(total, done) }),
        unit: 'bytes',
        ...(done > from && seconds > 0 ? { ratePerSecond: Math.round((done - from) / seconds) } : {}),
        message: 'Downloading',
      });
    };
  }

  /** Nothing tells when a server is of better mood: later and later it is asked again. */
  async #waitBeforeNext(failures: number): Promise<void> {
    const { signal } = this.#work;
    const delayMs = Math.min(this.#options.retryDelayMs * 2 ** failures, MAX_RETRY_DELAY_MS);
    await pause(delayMs, undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
  }
}

/**
 * Gives the path of the complete file in `place`, a directory of the daemon's own. May be called again after any crash.
 * Errors: NotFound, InvalidArgument for what the server refuses or where it leads to, Unavailable, ResourceExhausted.
 */
export const download = async (
  place: string,
  request: DownloadRequest,
  options: DownloadOptions,
  work: Work,
): Promise<string> => {
  const source = await new Download(place, request, options, work).run();
  if ((await lstat(source)).size > 0) return source;
  throw new RoostError('InvalidArgument', `${request.shownAs} is empty`, { data: { url: request.shownAs } });
};

/** Downloads by a real curl from a server that misbehaves on purpose. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { launcherPath, splicePath } from '../../../native/index.ts';
import type { ImageId } from '../../../protocol/types.ts';
import { imageStore, MAX_KERNEL_BYTES } from '../../../storage/images/image-store.ts';
import type { ImageImport, ImageStore, StoredImage } from '../../../storage/pool.ts';
import { newImage } from '../../conformance/image-store.ts';
import { work } from '../../conformance/pool.ts';
import { ImageServer, whenFileHas } from '../../harness/image-server.ts';
import { isRoot, run, scratchDirectory } from '../scratch-directory.ts';

const importer = { uid: 2_000_000_102, gid: 2_000_000_102 };
const MEBIBYTE = 1024 ** 2;
const CONTENT = Buffer.from(
  Array.from({ length: MEBIBYTE / 16 }, (_, index) => index.toString().padStart(16, '.')).join(''),
);
const OTHER = Buffer.from(CONTENT.toString().replaceAll('.', '-'));
const HALF = MEBIBYTE / 2;
const digestOf = (content: Buffer, algorithm = 'sha256'): string =>
  createHash(algorithm).update(content).digest('hex');

interface Setting {
  readonly server: ImageServer;
  readonly store: ImageStore;
  readonly scratch: string;
  readonly images: string;
  readonly id: ImageId;
  readonly request: (url: string, changes?: Partial<ImageImport>) => ImageImport;
  readonly fetch: (changes?: Partial<ImageImport>) => Promise<StoredImage>;
  /** Why an import was refused, once it is sure that `remove` leaves nothing. */
  readonly refusalOf: (url: string, changes?: Partial<ImageImport>) => Promise<unknown>;
}

const setUp = async (content = CONTENT, tls?: { key: string; cert: string }): Promise<Setting> => {
  const server = await ImageServer.start(content, tls);
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  const images = join(scratch.path, 'images');
  const store = imageStore({
    path: images,
    launcherPath: launcherPath(),
    splicePath: splicePath(),
    retryDelayMs: 1,
    stallSeconds: 1,
    ...(isRoot ? { importer, imagesGid: 2_000_000_103 } : {}),
  });
  const id = newImage();
  const request: Setting['request'] = (url, changes = {}) => ({
    id,
    kind: 'disk',
    format: 'raw',
    from: { kind: 'url', url, shownAs: 'http://shown/disk.raw' },
    ...changes,
  });
  return {
    server,
    store,
    scratch: scratch.path,
    images,
    id,
    request,
    fetch: (changes) => store.import(request(server.url(), changes), work()),
    refusalOf: async (url, changes) => {
      const outcome: unknown = await store
        .import(request(url, changes), work())
        .catch((error: unknown) => error);
      await store.remove(id);
      expect(await readdir(images)).toEqual([]);
      return outcome;
    },
  };
};

describe('a download that is cut short', () => {
  it('goes on where it was, and asks for the rest of the same file', async () => {
    const { server, fetch, id, images } = await setUp();
    server.next({ dropAfter: HALF }, { dropAfter: HALF / 2 });
    expect((await fetch()).sha256).toBe(digestOf(CONTENT));
    const [first, second, third] = server.asked;
    expect(server.asked).toHaveLength(3);
    expect(first).toMatchObject({ range: undefined, ifRange: undefined });
    expect(second?.ifRange).toMatch(/^"[0-9a-f]{16}"$/);
    const from = (range: string | undefined): number => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1]);
    expect(from(second?.range)).toBeGreaterThan(0);
    expect(from(second?.range)).toBeLessThanOrEqual(HALF);
    expect(from(third?.range)).toBeGreaterThan(from(second?.range));
    expect(await readdir(images)).toEqual([id]);
  });

  it('goes on by the date of the last change where there is no tag', async () => {
    const { server, fetch } = await setUp();
    server.tagged = false;
    server.lastModified = new Date('2026-11-01T00:00:00Z');
    server.next({ dropAfter: HALF });
    expect((await fetch()).sha256).toBe(digestOf(CONTENT));
    expect(server.asked[1]).toMatchObject({ ifRange: 'Sun, 01 Nov 2026 00:00:00 GMT' });
    expect(server.asked[1]?.range).toBeDefined();
  });

  it('begins anew where nothing says which file it was', async () => {
    const { server, fetch } = await setUp();
    server.tagged = false;
    server.next({ dropAfter: HALF });
    expect((await fetch()).sha256).toBe(digestOf(CONTENT));
    expect(server.asked.map(({ range }) => range)).toEqual([undefined, undefined]);
  });

  it('begins anew when the file has changed meanwhile', async () => {
    const { server, fetch } = await setUp();
    server.next({ dropAfter: HALF });
    server.onAsked = (count) => {
      if (count === 2) server.content = OTHER;
    };
    expect((await fetch()).sha256).toBe(digestOf(OTHER));
    expect(server.asked[1]?.range).toBeDefined();
  });

  it.each([
    ['ignores Range', { ignoresRange: true }],
    ['sends a part of another file', { ignoresIfRange: true }],
  ])('begins anew when the server %s', async (_what, manner) => {
    const { server, fetch } = await setUp();
    server.next({ dropAfter: HALF }, manner);
    server.onAsked = (count) => {
      if (count === 2) server.content = OTHER;
    };
    expect((await fetch()).sha256).toBe(digestOf(OTHER));
    expect(server.asked).toHaveLength(3);
  });

  it('goes on after a silence', async () => {
    const { server, fetch } = await setUp();
    server.next({ stallAfter: HALF });
    expect((await fetch()).sha256).toBe(digestOf(CONTENT));
    expect(server.asked[1]?.range).toBeDefined();
  });

  it('goes on in another process, and remove takes what was there away', async () => {
    const { server, store, request, images, id } = await setUp();
    const controller = new AbortController();
    const reason = new Error('the daemon stops');
    const partial = join(images, `.working-${id}`, 'fetching', 'partial');
    server.onStall = () => void whenFileHas(partial, HALF / 2).then(() => controller.abort(reason));
    server.next({ stallAfter: HALF }, { stallAfter: HALF / 2 });
    const stopped = { ...work(), signal: controller.signal };
    await expect(store.download(request(server.url()), stopped)).rejects.toBe(reason);
    expect(await readdir(images)).toHaveLength(1);
    const image = await store.import(request(server.url()), work());
    expect(image.sha256).toBe(digestOf(CONTENT));
    expect(server.asked[1]?.range).toBeDefined();
  });

  it('is given up after some attempts that bring nothing, whatever the server promises', async () => {
    const { server, refusalOf } = await setUp();
    server.next(...Array.from({ length: 20 }, () => ({ announcesMore: 10 })));
    expect(await refusalOf(server.url())).toMatchObject({ class: 'Unavailable' });
    expect(server.asked.length).toBeLessThan(10);
  });

  it('is forgotten after a boot of the host: nobody knows which bytes were written', async () => {
    const { server, store, request, images, id } = await setUp();
    const controller = new AbortController();
    server.onStall = () => controller.abort(new Error('the power fails'));
    server.next({ stallAfter: HALF });
    await expect(
      store.download(request(server.url()), { ...work(), signal: controller.signal }),
    ).rejects.toThrow('the power fails');
    await writeFile(join(images, `.working-${id}`, 'begun'), 'another boot\n');
    await store.download(request(server.url()), work());
    expect(server.asked.map(({ range }) => range)).toEqual([undefined, undefined]);
  });
});

describe('a download', () => {
  it('needs no length, and tells how far it is and how fast', async () => {
    const { server, store, request } = await setUp();
    const heard: unknown[] = [];
    server.next({ chunked: true });
    const progress = (report: unknown): void => void heard.push(report);
    await store.download(request(server.url()), { ...work(), progress });
    expect(heard.at(-1)).toMatchObject({
      done: MEBIBYTE,
      unit: 'bytes',
      message: 'Downloading',
      ratePerSecond: expect.any(Number) as unknown,
    });
  });

  it('may be of an unknown length and cut short: then the digest tells', async () => {
    const { server, refusalOf } = await setUp();
    server.next(...Array.from({ length: 20 }, () => ({ chunked: true, dropAfter: HALF })));
    expect(await refusalOf(server.url())).toMatchObject({ class: 'Unavailable' });
    expect(await refusalOf(server.url(), { sha512: digestOf(OTHER, 'sha512') })).toMatchObject({
      class: expect.stringMatching(/Unavailable|InvalidArgument/) as unknown,
    });
  });

  it.each([
    [404, 'NotFound'],
    [410, 'NotFound'],
    [401, 'InvalidArgument'],
    [403, 'InvalidArgument'],
    [400, 'InvalidArgument'],
  ])('that is answered by %i is refused at once as %s', async (status, errorClass) => {
    const { server, refusalOf } = await setUp();
    server.next({ status });
    expect(await refusalOf(server.url())).toMatchObject({ class: errorClass, data: { status } });
    expect(server.asked).toHaveLength(1);
  });

  it('waits for a server that is busy, but not for ever', async () => {
    const { server, store, request, refusalOf } = await setUp();
    server.next({ status: 503 }, { status: 429 });
    await store.download(request(server.url()), work());
    await store.remove(request('').id);
    server.next(...Array.from({ length: 20 }, () => ({ status: 500 })));
    expect(await refusalOf(server.url())).toMatchObject({ class: 'Unavailable', data: { status: 500 } });
  });

  it('of nothing, of too much or of another digest is refused', async () => {
    const { server, refusalOf } = await setUp();
    server.next({ announcesMore: 2 * 1024 ** 3 });
    expect(await refusalOf(server.url(), { kind: 'kernel' })).toMatchObject({ class: 'ResourceExhausted' });
    expect(await refusalOf(server.url(), { sha256: digestOf(OTHER) })).toMatchObject({
      class: 'InvalidArgument',
      data: { expected: digestOf(OTHER), actual: digestOf(CONTENT) },
    });
    expect(await refusalOf(server.url(), { sha512: digestOf(OTHER, 'sha512') })).toMatchObject({
      class: 'InvalidArgument',
    });
    server.content = Buffer.alloc(0);
    expect(await refusalOf(server.url())).toMatchObject({ class: 'InvalidArgument' });
  });

  it('from where nobody listens is refused at once', async () => {
    const { server, refusalOf } = await setUp();
    const url = server.url();
    await server.close();
    expect(await refusalOf(url)).toMatchObject({ class: 'Unavailable' });
  });

  it('keeps its password to itself: no process, error or other server sees it', async () => {
    const { server, store, request, refusalOf } = await setUp();
    const url = server.url('/disk?key=sesame').replace('//', '//user:sesame@');
    const other = await ImageServer.start(CONTENT);
    let seen: string[] = [];
    server.onStall = () => {
      seen = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).split('\n');
    };
    server.next({ stallAfter: HALF }, { status: 302, location: other.url('/elsewhere') });
    await store.download(request(url), work());
    expect(seen.some((line) => line.startsWith('curl '))).toBe(true);
    expect(seen.filter((line) => line.includes('sesame'))).toEqual([]);
    expect(server.asked[0]?.authorization).toBe(`Basic ${Buffer.from('user:sesame').toString('base64')}`);
    expect(other.asked).toMatchObject([{ path: '/elsewhere', authorization: undefined }]);
    await store.remove(request('').id);
    server.next({ status: 403 });
    const refusal = await refusalOf(url);
    const told = [refusal, (refusal as { data?: unknown }).data, (refusal as Error).cause];
    expect(JSON.stringify(told) + String(refusal) + (refusal as Error).stack).not.toContain('sesame');
  });

  it('follows redirects, but not for ever and to no file of the host', async () => {
    const { server, fetch } = await setUp();
    server.next(...Array.from({ length: 3 }, () => ({ status: 302, location: '/again' })));
    expect((await fetch()).sha256).toBe(digestOf(CONTENT));
    const { refusalOf: refuse, server: evil } = await setUp();
    evil.next(...Array.from({ length: 20 }, () => ({ status: 302, location: '/again' })));
    expect(await refuse(evil.url())).toMatchObject({ class: 'InvalidArgument', data: { curl: 47 } });
    const { refusalOf: refuseFile, server: reader } = await setUp();
    reader.next({ status: 302, location: 'file:///etc/passwd' });
    expect(await refuseFile(reader.url())).toMatchObject({ class: 'InvalidArgument', data: { curl: 1 } });
  });

  it('over TLS believes the authorities of the host, or those it is given; to plain HTTP only a digest lets it', async () => {
    const scratch = await scratchDirectory();
    onTestFinished(() => scratch[Symbol.asyncDispose]());
    const [key, cert] = [join(scratch.path, 'key'), join(scratch.path, 'cert')];
    const subject = ['-subj', '/CN=roost', '-addext', 'subjectAltName=IP:127.0.0.1'];
    await run(
      'openssl',
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-keyout',
      key,
      '-out',
      cert,
      ...subject,
    );
    const tls = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
    const { server, store, request, refusalOf } = await setUp(CONTENT, tls);
    const url = server.url('/disk.raw', 'https');
    expect(await refusalOf(url)).toMatchObject({ class: 'InvalidArgument', data: { curl: 60 } });
    const from = { kind: 'url', url, shownAs: 'shown', authorities: tls.cert } as const;
    const plain = await ImageServer.start(CONTENT);
    server.next({ status: 302, location: plain.url() });
    expect(await refusalOf(url, { from })).toMatchObject({ class: 'InvalidArgument', data: { curl: 1 } });
    server.next({ status: 302, location: plain.url() });
    const image = await store.import(request(url, { from, sha256: digestOf(CONTENT) }), work());
    expect(image.virtualSizeBytes).toBe(MEBIBYTE);
  });
});

describe.runIf(isRoot)('a curl that was subverted', () => {
  /** Puts a curl before the real one that does this. */
  const placeCurl = async (scratch: string, script: string): Promise<void> => {
    await mkdir(join(scratch, 'bin'), { mode: 0o755 });
    await writeFile(join(scratch, 'bin', 'curl'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    vi.stubEnv('PATH', `${join(scratch, 'bin')}:${process.env['PATH'] ?? ''}`);
    onTestFinished(() => void vi.unstubAllEnvs());
  };

  it.each([
    ['a link to a file of the host', 'ln -s /etc/shadow partial; printf "200 "'],
    ['a FIFO', 'mkfifo partial; printf "200 "'],
    ['a directory', 'mkdir partial; printf "200 "'],
  ])('cannot make %s its result', async (_what, script) => {
    const { server, scratch, refusalOf } = await setUp();
    const before = await stat('/etc/shadow');
    await placeCurl(scratch, script);
    const refusal = await refusalOf(server.url());
    expect(refusal).toMatchObject({
      class: expect.stringMatching(/HostError|InvalidArgument|Internal/) as unknown,
    });
    expect(await stat('/etc/shadow')).toMatchObject({ mode: before.mode, uid: before.uid, gid: before.gid });
  });

  it('runs as an identity that owns nothing, and may write so much and no more', async () => {
    const { server, store, scratch, request, id } = await setUp();
    await placeCurl(scratch, '{ id -u; id -G; ulimit -c; ulimit -f; } > partial; printf "200 "');
    const image = await store.import(request(server.url(), { kind: 'kernel' }), work());
    const said = (await readFile(store.source(id, image).path, 'utf8')).split('\n');
    expect(said.slice(0, 3)).toEqual([`${importer.uid}`, `${importer.gid}`, '0']);
    // In blocks of 512 bytes; a kernel may have a GiB.
    expect(Number(said[3])).toBeLessThanOrEqual(MAX_KERNEL_BYTES / 512);
  });
});

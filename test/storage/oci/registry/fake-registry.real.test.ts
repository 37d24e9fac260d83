/** Pulls from a registry that misbehaves: resumed or refused, and nothing half-kept. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { launcherPath, splicePath } from '../../../../native/index.ts';
import { ociImages } from '../../../../storage/oci/oci-images.ts';
import { mergeLimits } from '../../../../storage/oci/tree/merge.ts';
import type { OciOrigin } from '../../../../storage/pool.ts';
import { work } from '../../../conformance/pool.ts';
import { FakeRegistry } from '../../../harness/fake-registry.ts';
import { whenDownloadHas } from '../../../harness/image-server.ts';
import { archiveOf, Layout, type LayoutDescriptor, tool } from '../../../harness/oci-layout.ts';
import { bring, type OciPlace, ociPlace } from '../oci-place.ts';

const KIBIBYTE = 1024;
const HALF = 100 * KIBIBYTE;
/** Bytes that no compression makes fewer. */
const LAYER_BYTES = 2 * HALF;

interface Made extends OciPlace {
  readonly layout: Layout;
  readonly registry: FakeRegistry;
  readonly layers: readonly { readonly descriptor: LayoutDescriptor; readonly diffId: string }[];
  readonly image: LayoutDescriptor;
  readonly from: OciOrigin & { readonly kind: 'registry' };
  /** Path in the registry of a layer. */
  readonly blob: (index?: number) => string;
}

const certificate = async (directory: string): Promise<{ key: string; cert: string }> => {
  const [key, cert] = [join(directory, 'key'), join(directory, 'cert')];
  const form = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const subject = ['-subj', '/CN=roost', '-addext', 'subjectAltName=IP:127.0.0.1'];
  await tool(['openssl', 'req', ...form, '-keyout', key, '-out', cert, ...subject]);
  return { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') };
};

const make = async (
  options: {
    readonly layers?: number;
    readonly tls?: boolean;
    readonly changes?: Parameters<typeof ociPlace>[0];
  } = {},
): Promise<Made & { readonly cert: string }> => {
  const place = await ociPlace(options.changes);
  const layout = await Layout.make(join(place.path, 'layout'));
  const layers: Made['layers'][number][] = [];
  for (let index = 0; index < (options.layers ?? 1); index += 1) {
    const tree = join(place.path, `tree-${index}`);
    await mkdir(tree);
    await writeFile(join(tree, `file-${index}`), randomBytes(LAYER_BYTES));
    layers.push(await layout.layer(await archiveOf(tree, join(place.path, `${index}.tar`))));
  }
  const image = await layout.image(undefined, layers);
  const tls = options.tls === true ? await certificate(place.path) : undefined;
  const registry = await FakeRegistry.start(layout, tls);
  registry.tags.set('latest', image);
  const from = { kind: 'registry', reference: registry.reference(), authorities: tls?.cert } as const;
  const blob = (index = 0): string => `blobs/${layers[index]?.descriptor.digest ?? ''}`;
  return { ...place, layout, layers, image, registry, from, blob, cert: tls?.cert ?? '' };
};

/** How the whole of it is refused. */
const refusal = async (made: Made, from: OciOrigin = made.from, id = 'one'): Promise<unknown> => {
  const error: unknown = await bring(made.images, await made.request(from, id)).then(
    () => 'it was taken',
    (thrown: unknown) => thrown,
  );
  // Nothing that was refused is a blob.
  const kept = await readdir(join(made.imagesPath, id, 'oci', 'blobs', 'sha256')).catch(() => []);
  for (const name of kept) {
    const path = join(made.imagesPath, id, 'oci', 'blobs', 'sha256', name);
    const sum = await tool(['sha256sum', path]);
    expect(sum.startsWith(name)).toBe(true);
  }
  return error;
};

const invalid = expect.objectContaining({ class: 'InvalidArgument' });

describe('a download', () => {
  it('that is cut goes on where it was', async () => {
    const made = await make();
    made.registry.next(made.blob(), { dropAfter: HALF }, { dropAfter: 10 });
    await bring(made.images, await made.request(made.from));
    const ranges = made.registry.asked.filter(({ path }) => path === made.blob()).map(({ range }) => range);
    expect(ranges).toEqual([undefined, `bytes=${HALF}-`, `bytes=${HALF + 10}-`]);
  });

  it('begins anew where the server knows no ranges', async () => {
    const made = await make();
    made.registry.next(made.blob(), { dropAfter: HALF }, { ignoresRange: true });
    await bring(made.images, await made.request(made.from));
    const ranges = made.registry.asked.filter(({ path }) => path === made.blob()).map(({ range }) => range);
    expect(ranges).toEqual([undefined, `bytes=${HALF}-`, undefined]);
  });

  it('that is given up goes on in the next daemon, and the manifest is not asked for again', async () => {
    const made = await make();
    const request = await made.request(made.from);
    const given = new AbortController();
    made.registry.onStall = () =>
      void whenDownloadHas(made.imagesPath, 1).then(() => given.abort(new Error('the daemon ends')));
    made.registry.next(made.blob(), { stallAfter: HALF });
    await made.images.resolve(request, work());
    await expect(made.images.fetch(request, work(given.signal))).rejects.toThrow('the daemon ends');
    made.registry.tags.clear();
    made.registry.asked.length = 0;
    await bring(made.images, request);
    const [asked, more] = made.registry.asked;
    expect(more).toBeUndefined();
    expect(asked).toMatchObject({ path: made.blob(), range: expect.stringMatching(/^bytes=[1-9]\d*-$/) });
  });

  it('is made of a few layers at a time, and tells how far it is', async () => {
    const made = await make({ layers: 7 });
    let open: () => void = () => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    // The first ones wait until three are under way.
    for (let index = 0; index < 7; index += 1) made.registry.next(made.blob(index), { until: opened });
    const heard: { done: number; total?: number }[] = [];
    const request = await made.request(made.from);
    await made.images.resolve(request, work());
    made.registry.mostUnderWay = 0;
    const each = {
      ...work(),
      progress: (progress: { done: number; total?: number }): void => {
        heard.push(progress);
        if (made.registry.underWay === 3) open();
      },
    };
    await made.images.fetch(request, each);
    expect(made.registry.mostUnderWay).toBe(3);
    const total = made.layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
    expect(heard.at(-1)).toMatchObject({ done: total, total, unit: 'bytes' });
  });

  it('is not made of what another image has, which stays when that one goes', async () => {
    const made = await make({ layers: 2 });
    await bring(made.images, await made.request(made.from, 'one'));
    const [shared] = made.layers;
    const tag = await made.layout.image(undefined, shared ? [shared] : []);
    made.registry.tags.set('v2', tag);
    made.registry.asked.length = 0;
    const second = await made.request({ ...made.from, reference: made.registry.reference('v2') }, 'two');
    await made.images.resolve(second, work());
    await made.images.fetch(second, work());
    expect(made.registry.paths).not.toContain(made.blob(0));
    const digits = shared?.descriptor.digest.replace('sha256:', '') ?? '';
    const path = join(second.directory, 'oci', 'blobs', 'sha256', digits);
    expect((await stat(path)).nlink).toBe(2);
    await rm(join(made.imagesPath, 'one'), { recursive: true });
    expect((await stat(path)).nlink).toBe(1);
    await made.images.merge(second, work());
  });

  it('of the same layers makes the same disk, byte for byte', async () => {
    const made = await make({ layers: 2 });
    const one = await bring(made.images, await made.request(made.from, 'one'));
    const two = await bring(made.images, await made.request(made.from, 'two'));
    expect((await readFile(one)).equals(await readFile(two))).toBe(true);
  });

  it('asks mirrors first, and the registry for what they lack', async () => {
    const made = await make({ layers: 2 });
    const mirror = await FakeRegistry.start(made.layout);
    mirror.tags.set('latest', made.image);
    mirror.next(made.blob(1), { status: 404 });
    const images = ociImages({
      imagesPath: made.imagesPath,
      launcherPath: launcherPath(),
      splicePath: splicePath(),
      retryDelayMs: 1,
      registries: [{ registry: made.registry.host, mirrors: [mirror.url] }],
    });
    const request = await made.request({ ...made.from, credentials: { username: 'u', password: 'p' } });
    await images.resolve(request, work());
    await images.fetch(request, work());
    expect(mirror.paths).toContain(made.blob(0));
    expect(made.registry.paths).toEqual([made.blob(1)]);
    expect(mirror.asked.every(({ authorization }) => authorization === undefined)).toBe(true);
  });
});

describe('authorization', () => {
  const secret = { username: 'me', password: 'open sesame' } as const;

  it('by a token, for anybody', async () => {
    const made = await make();
    made.registry.auth = { kind: 'token' };
    await bring(made.images, await made.request(made.from));
    const token = made.registry.asked.find(({ path }) => path.startsWith('token'));
    expect(token).toMatchObject({
      path: 'token?service=test&scope=repository%3Aapp%3Apull',
      authorization: undefined,
    });
  });

  it('by a token for a name and password, which the registry itself never sees', async () => {
    const made = await make();
    made.registry.auth = { kind: 'token', ...secret };
    await bring(made.images, await made.request({ ...made.from, credentials: secret }));
    const basic = `Basic ${Buffer.from('me:open sesame').toString('base64')}`;
    for (const { path, authorization } of made.registry.asked)
      expect(authorization === basic).toBe(path.startsWith('token'));
  });

  it('by an identity token from a file of credentials', async () => {
    const made = await make();
    made.registry.auth = { kind: 'token', identityToken: 'refresh me' };
    const authFile = join(made.path, 'config.json');
    await writeFile(
      authFile,
      JSON.stringify({ auths: { [made.registry.host]: { identitytoken: 'refresh me' } } }),
    );
    await bring(made.images, await made.request({ ...made.from, authFile }));
    const token = made.registry.asked.find(({ path }) => path.startsWith('token'));
    expect(Object.fromEntries(new URLSearchParams(token?.body))).toMatchObject({
      grant_type: 'refresh_token',
      refresh_token: 'refresh me',
      service: 'test',
    });
  });

  it('by a token that ends in the middle is asked for again', async () => {
    const made = await make({ layers: 3 });
    made.registry.auth = { kind: 'token', uses: 2 };
    made.registry.next(made.blob(2), { dropAfter: HALF });
    await bring(made.images, await made.request(made.from));
    expect(made.registry.asked.filter(({ path }) => path.startsWith('token')).length).toBeGreaterThan(2);
  });

  it.each(['basic', 'token'] as const)(
    'by %s for several requests that are refused at once',
    async (kind) => {
      const made = await make({ layers: 3 });
      const request = await made.request({ ...made.from, credentials: secret });
      await made.images.resolve(request, work());
      made.registry.auth = { kind, ...secret };
      made.registry.refusedTogether = 3;
      made.registry.asked.length = 0;
      await made.images.fetch(request, work());
      expect(made.registry.paths).toHaveLength(6);
    },
  );

  it('by name and password', async () => {
    const made = await make();
    made.registry.auth = { kind: 'basic', ...secret };
    await bring(made.images, await made.request({ ...made.from, credentials: secret }));
    expect(made.registry.paths.slice(0, 2)).toEqual(['manifests/latest', 'manifests/latest']);
  });

  it.each([
    ['nobody', undefined],
    ['the wrong one', { username: 'me', password: 'wrong' }],
  ])('of %s is refused, and ends', async (_title, credentials) => {
    for (const kind of ['basic', 'token'] as const) {
      const made = await make();
      made.registry.auth = { kind, ...secret };
      const error = await refusal(made, { ...made.from, credentials });
      expect(error).toMatchObject({ class: 'InvalidArgument', hint: expect.stringContaining('credentials') });
      expect(made.registry.asked.length).toBeLessThan(8);
    }
  });

  it('goes to no other server, is in no list of processes, and in no error', async () => {
    const made = await make();
    made.registry.auth = { kind: 'basic', ...secret };
    const other = await FakeRegistry.start(made.layout);
    made.registry.next(made.blob(), {
      status: 307,
      location: `${other.url}/v2/app/${made.blob()}`,
    });
    let seen: string[] = [];
    other.onStall = () => {
      seen = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).split('\n');
    };
    other.next(made.blob(), { stallAfter: HALF });
    await bring(made.images, await made.request({ ...made.from, credentials: secret }));
    const encoded = Buffer.from('me:open sesame').toString('base64');
    expect(seen.some((line) => line.startsWith('curl '))).toBe(true);
    expect(seen.filter((line) => line.includes('sesame') || line.includes(encoded))).toEqual([]);
    expect(other.asked.length).toBeGreaterThan(0);
    expect(other.asked.every(({ authorization }) => authorization === undefined)).toBe(true);
    const failing = await make();
    failing.registry.auth = { kind: 'basic', username: 'me', password: 'another' };
    const error = await refusal(failing, { ...failing.from, credentials: secret });
    const { data, cause, stack, hint } = error as Error & { data: unknown; hint: unknown };
    expect(JSON.stringify([data, hint, cause, stack, String(error)])).not.toMatch(/sesame|bWU6b3Blbi/);
  });

  it('by a token from a place less safe than the registry is refused, and nothing is sent there', async () => {
    const made = await make({ tls: true });
    const other = await FakeRegistry.start(made.layout);
    made.registry.auth = { kind: 'token', ...secret, realm: `${other.url}/token` };
    expect(await refusal(made, { ...made.from, credentials: secret })).toEqual(invalid);
    made.registry.auth = { kind: 'token', ...secret, realm: 'file:///etc/passwd' };
    expect(await refusal(made, { ...made.from, credentials: secret }, 'two')).toEqual(invalid);
    expect(other.asked).toEqual([]);
  });
});

describe('TLS', () => {
  it('is held against the authorities that are given, and redirects do not lead out of it', async () => {
    const made = await make({ tls: true });
    await bring(made.images, await made.request(made.from));
    const { authorities: _none, ...unknown } = made.from;
    expect(await refusal(made, { ...unknown, plainHttp: false }, 'two')).toMatchObject({
      data: { curl: 60 },
    });
    const other = await FakeRegistry.start(made.layout);
    const fresh = await make({ tls: true });
    fresh.registry.next(fresh.blob(), { status: 307, location: `${other.url}/v2/app/${made.blob()}` });
    expect(await refusal(fresh)).toMatchObject({ class: 'InvalidArgument', data: { curl: 1 } });
    const reader = await make({ tls: true });
    reader.registry.next(reader.blob(), { status: 307, location: 'file:///etc/passwd' });
    expect(await refusal(reader)).toMatchObject({ class: 'InvalidArgument', data: { curl: 1 } });
    expect(other.asked).toEqual([]);
  });
});

describe('refused is', () => {
  const tagged = async (made: Made, descriptor: LayoutDescriptor): Promise<unknown> => {
    made.registry.tags.set('bad', descriptor);
    return await refusal(made, { ...made.from, reference: made.registry.reference('bad') });
  };

  it('a layer with other bytes, or fewer, or more', async () => {
    for (const change of [
      (content: Buffer): Buffer =>
        Buffer.from(content.map((byte, index) => (index === 500 ? byte ^ 1 : byte))),
      (content: Buffer): Buffer => content.subarray(0, -1),
      (content: Buffer): Buffer => Buffer.concat([content, Buffer.from('x')]),
    ]) {
      const made = await make();
      const content = await readFile(made.layout.pathOf(made.layers[0]?.descriptor.digest ?? ''));
      made.registry.next(made.blob(), { content: change(content) });
      expect(await refusal(made)).toEqual(invalid);
    }
  });

  it('a manifest that is not the one asked for', async () => {
    const made = await make();
    made.registry.next('manifests/latest', { digest: `sha256:${'0'.repeat(64)}` });
    expect(await refusal(made)).toEqual(invalid);
    const other = await made.layout.image(undefined, []);
    const reference = `${made.registry.host}/app@${other.digest}`;
    made.registry.next(`manifests/${other.digest}`, {
      content: await readFile(made.layout.pathOf(made.image.digest)),
    });
    expect(await refusal(made, { ...made.from, reference })).toEqual(invalid);
  });

  it('a manifest of 100 MB, announced or not', async () => {
    const made = await make();
    made.registry.next('manifests/latest', { content: Buffer.alloc(100_000_000, ' ') });
    expect(await refusal(made)).toEqual(invalid);
    made.registry.next('manifests/latest', { endlessBytes: 100_000_000 });
    expect(await refusal(made)).toEqual(invalid);
  });

  it('an image that is not there, and a registry that has had enough', async () => {
    const made = await make();
    expect(await refusal(made, { ...made.from, reference: made.registry.reference('none') })).toMatchObject({
      class: 'NotFound',
    });
    made.registry.next('manifests/latest', ...Array.from({ length: 5 }, () => ({ status: 429 })));
    expect(await refusal(made)).toMatchObject({ class: 'Unavailable' });
  });

  it('indexes in indexes without end, and an index that leads to no manifest', async () => {
    const made = await make();
    const platform = { os: 'linux', architecture: 'amd64' };
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    let descriptor = made.image;
    const around = async (): Promise<void> => {
      const index = { schemaVersion: 2, mediaType, manifests: [{ ...descriptor, platform }] };
      descriptor = { ...(await made.layout.json(mediaType, index)), platform };
    };
    for (let depth = 0; depth < 4; depth += 1) await around();
    made.registry.tags.set('nested', descriptor);
    const nested = { ...made.from, reference: made.registry.reference('nested') };
    await bring(made.images, await made.request(nested, 'nested'));
    for (let depth = 0; depth < 4; depth += 1) await around();
    expect(await tagged(made, descriptor)).toEqual(invalid);
    const odd = await made.layout.json(mediaType, {
      schemaVersion: 2,
      manifests: [{ mediaType: 'application/x', digest: made.image.digest, size: 5, platform }],
    });
    expect(await tagged(made, odd)).toEqual(invalid);
  });

  it('an image for another platform, and what is no image', async () => {
    const made = await make();
    const foreign = await made.layout.image(undefined, made.layers, { platform: { architecture: 's390x' } });
    expect(await tagged(made, foreign)).toMatchObject({
      class: 'InvalidArgument',
      data: { platforms: ['linux/s390x'] },
    });
    const { digest } = made.image;
    const chart = await made.layout.json('application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      config: { mediaType: 'application/vnd.cncf.helm.config.v1+json', digest, size: 1 },
      layers: [],
    });
    expect(await tagged(made, chart)).toMatchObject({ class: 'Unsupported' });
  });

  it('a layer that unpacks to something else than its config says, or to nothing', async () => {
    const made = await make();
    const [layer] = made.layers;
    if (!layer) throw new Error('there is no layer');
    const wrong = await made.layout.image(undefined, [{ ...layer, diffId: `sha256:${'0'.repeat(64)}` }]);
    expect(await tagged(made, wrong)).toEqual(invalid);
    const junk = await made.layout.blob(
      'application/vnd.oci.image.layer.v1.tar+gzip',
      Buffer.from('no gzip'),
    );
    made.registry.tags.set('junk', await made.layout.image(undefined, [{ ...layer, descriptor: junk }]));
    const from = { ...made.from, reference: made.registry.reference('junk') };
    expect(await refusal(made, from, 'junk')).toEqual(invalid);
  });

  it('a layer that unpacks without end, and leaves no trace', async () => {
    const limits = { ...mergeLimits, maxUnpackedBytes: 1024 ** 2 };
    const made = await make({ changes: { limits } });
    const bomb = join(made.path, 'bomb.tar');
    await writeFile(bomb, Buffer.alloc(64 * 1024 ** 2));
    const layer = await made.layout.layer(bomb);
    expect(layer.descriptor.size).toBeLessThan(100_000);
    expect(await tagged(made, await made.layout.image(undefined, [layer]))).toMatchObject({
      class: 'ResourceExhausted',
    });
    const found = await stat(join(made.imagesPath, 'one', 'merge', '0.tar')).catch(() => ({ size: 0 }));
    expect(found.size).toBeLessThanOrEqual(limits.maxUnpackedBytes);
  });

  it('an image of too many files, or of too long names', async () => {
    for (const limits of [
      { ...mergeLimits, maxEntries: 1 },
      { ...mergeLimits, maxNameBytes: 3 },
    ]) {
      const made = await make({ changes: { limits } });
      expect(await refusal(made)).toMatchObject({ class: 'ResourceExhausted' });
    }
  });
});

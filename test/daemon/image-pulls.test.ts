/** OCI images in a whole daemon: names, what is already here, credentials, refusals, and a crash or failure at each step. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import { type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from './fake-house.ts';

const [one, two] = ['1', '2'].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string];
const DEBIAN = 'docker.io/library/debian:12';
const secret = { username: 'me', password: 'the password' };

const agreed = async (daemon: FakeDaemon): Promise<void> => {
  expect(await daemon.host()).toEqual(daemon.ledger);
};

const withDebian = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon }> => {
  const house = await fakeHouse();
  house.oci.offer(DEBIAN, one);
  return { house, daemon: await house.start() };
};

const imagesOf = async ({ client }: FakeDaemon): Promise<readonly unknown[]> =>
  (await client.call('query-images', {})).images;

test('a pull is a dated version of a name that its reference gives', async () => {
  const { house, daemon } = await withDebian();
  const day = new Date(house.clock.now()).toISOString().slice(0, 10).replaceAll('-', '');
  const ended = await daemon.client.finish('image-pull', { reference: 'debian:12' });
  expect(ended).toMatchObject({ state: 'succeeded', result: { name: 'debian/12', version: day } });
  expect(await imagesOf(daemon)).toMatchObject([
    {
      name: 'debian/12',
      kind: 'oci',
      state: 'ready',
      source: { kind: 'registry', reference: DEBIAN },
      oci: { digest: one, reference: DEBIAN, platform: expect.stringMatching(/^linux\//) },
    },
  ]);
  const shown = await daemon.client.call('query-image', { image: 'debian/12' });
  expect(shown).toMatchObject({ name: 'debian/12', config: { cmd: ['/bin/true'] } });
  await agreed(daemon);
});

test('what is here already is not fetched again, unless a version is named or another came', async () => {
  const { house, daemon } = await withDebian();
  const { client } = daemon;
  await client.done('image-pull', { reference: 'debian:12', version: 'v1' });
  const again = await client.finish('image-pull', { reference: 'debian:12' });
  expect(again).toMatchObject({ state: 'succeeded', result: { version: 'v1', upToDate: true } });
  expect(house.oci.steps).toEqual(['resolve', 'fetch', 'merge', 'resolve']);
  await agreed(daemon);
  await client.done('image-pull', { reference: 'debian:12', version: 'v2' });
  await client.done('image-pull', { reference: 'debian:12', platform: 'linux/riscv64', version: 'other' });
  house.oci.offer(DEBIAN, two);
  expect(await client.finish('image-pull', { reference: 'debian:12' })).toMatchObject({
    result: expect.not.objectContaining({ upToDate: true }),
  });
  expect(await imagesOf(daemon)).toHaveLength(4);
  await agreed(daemon);
});

test('a layout or archive of the host is imported by the same steps', async () => {
  const { house, daemon } = await withDebian();
  house.oci.offer('/srv/layout', two);
  const { client } = daemon;
  await client.done('image-import', { name: 'app', kind: 'oci', path: '/srv/layout', reference: 'v1' });
  expect(await imagesOf(daemon)).toMatchObject([
    { name: 'app', kind: 'oci', source: { kind: 'file', path: '/srv/layout' }, oci: { digest: two } },
  ]);
  await client.done('image-import', {
    name: 'app',
    kind: 'oci',
    path: '/srv/layout',
    format: 'docker-archive',
    version: '2',
  });
  expect(house.oci.origins.map(({ kind }) => kind)).toEqual([
    'oci-layout',
    'oci-layout',
    'oci-layout',
    'docker-archive',
    'docker-archive',
    'docker-archive',
  ]);
  expect(house.oci.origins[0]).toEqual({ kind: 'oci-layout', path: '/srv/layout', reference: 'v1' });
  await agreed(daemon);
});

test('other verbs work on them as on any image', async () => {
  const { daemon } = await withDebian();
  const { client } = daemon;
  for (const version of ['1', '2', '3']) await client.done('image-pull', { reference: 'debian:12', version });
  await client.done('image-alias-set', { alias: 'base', image: 'debian/12@1' });
  await client.done('image-prune', { image: 'debian/12' });
  expect(await imagesOf(daemon)).toMatchObject([{ version: '3' }, { version: '1', aliases: ['base'] }]);
  await client.done('image-delete', { image: 'debian/12', allVersions: true });
  expect(await imagesOf(daemon)).toEqual([]);
  await agreed(daemon);
});

test.each([
  ['a reference that is none', { reference: 'https://docker.io/debian' }, 'InvalidArgument'],
  ['a name that is too long', { reference: `${'long/'.repeat(20)}name` }, 'InvalidArgument'],
  [
    'credentials twice',
    { reference: 'debian', credentials: secret, authFile: '/root/.docker/config.json' },
    'InvalidArgument',
  ],
  ['a platform that is none', { reference: 'debian', platform: 'amd64' }, 'InvalidArgument'],
])('%s is refused before anything is done', async (_title, args, errorClass) => {
  const { house, daemon } = await withDebian();
  await expect(daemon.client.call('image-pull', args)).rejects.toMatchObject({ class: errorClass });
  expect(house.oci.steps).toEqual([]);
  expect(await imagesOf(daemon)).toEqual([]);
  await agreed(daemon);
});

test.each([
  ['a URL', { url: 'https://example.org/layout.tar' }],
  ['a format of disks', { path: '/srv/layout', format: 'qcow2' as const }],
  ['a digest', { path: '/srv/layout', sha256: '0'.repeat(64) }],
  ['neither path nor URL', {}],
])('an import of kind oci with %s is refused', async (_title, args) => {
  const { daemon } = await withDebian();
  await expect(
    daemon.client.call('image-import', { name: 'app', kind: 'oci', ...args }),
  ).rejects.toMatchObject({
    class: 'InvalidArgument',
  });
  expect(await imagesOf(daemon)).toEqual([]);
});

test('a disk is not imported as an OCI layout, and no guest is made of an OCI image', async () => {
  const { house, daemon } = await withDebian();
  house.images.offer('/srv/disk', 1024);
  const { client } = daemon;
  await expect(
    client.call('image-import', { name: 'a', path: '/srv/disk', format: 'oci-layout' }),
  ).rejects.toMatchObject({ class: 'InvalidArgument' });
  await client.done('image-pull', { reference: 'debian:12' });
  await expect(
    client.call('guest-create', { name: 'web', memoryBytes: 2 ** 27, disks: [{ image: 'debian/12' }] }),
  ).rejects.toMatchObject({ class: 'InvalidArgument' });
});

test('a host without the programs says so before anything is done', async () => {
  const { house, daemon } = await withDebian();
  house.oci.unmergeable = 'there is no sqfstar';
  await expect(daemon.client.call('image-pull', { reference: 'debian:12' })).rejects.toMatchObject({
    class: 'Unsupported',
  });
  expect(await imagesOf(daemon)).toEqual([]);
});

test('credentials reach the registry, and no journal, event or database', async () => {
  const { house, daemon } = await withDebian();
  const { client } = daemon;
  const ended = await client.finish('image-pull', { reference: 'debian:12', credentials: secret });
  expect(house.oci.origins[0]).toMatchObject({ credentials: secret });
  const { operations } = await client.call('query-operations', { ids: [ended.id] });
  const told = JSON.stringify([
    ended,
    operations,
    await client.call('query-operation', { operation: ended.id }),
    await client.call('query-events', {}),
    await client.call('query-image', { image: 'debian/12' }),
  ]);
  expect(told).not.toContain(secret.password);
  for (const name of ['roost.db', 'roost.db-wal']) {
    const bytes = await readFile(join(house.stateDirectory, name)).catch(() => Buffer.alloc(0));
    expect(bytes.includes(secret.password)).toBe(false);
  }
});

test('a pull that lost its credentials with the daemon says so', async () => {
  const { house, daemon } = await withDebian();
  await daemon.stop();
  const { observeStep, reached, thaw } = freezeAt(
    ({ step, moment }) => step === 'resolve' && moment === 'before',
  );
  const doomed = await house.start({ observeStep });
  const { operation } = await doomed.client.call('image-pull', {
    reference: 'debian:12',
    credentials: secret,
  });
  await reached;
  await doomed.crash(thaw);
  house.oci.before = () => {
    throw new RoostError('InvalidArgument', 'The registry does not give it out', { data: { status: 401 } });
  };
  const next = await house.start();
  expect(await next.client.call('operation-wait', { operation })).toMatchObject({
    state: 'failed',
    error: { class: 'FailedPrecondition', hint: expect.stringContaining('Pull the image again') },
  });
  expect(house.oci.origins.at(-1)).toMatchObject({ credentials: undefined });
  expect(await imagesOf(next)).toEqual([]);
  await agreed(next);
});

test('cancelled in the middle it leaves nothing', async () => {
  const { house, daemon } = await withDebian();
  const begun = deferred<void>();
  house.oci.before = (step, { signal }) =>
    step === 'fetch'
      ? new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          begun.resolve();
        })
      : undefined;
  const { operation } = await daemon.client.call('image-pull', { reference: 'debian:12' });
  await begun.promise;
  await daemon.client.call('operation-cancel', { operation });
  expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({ state: 'cancelled' });
  expect(await imagesOf(daemon)).toEqual([]);
  await agreed(daemon);
});

const places = ['resolve', 'fetch', 'merge', 'copy'].flatMap((step) =>
  (['before', 'after'] as const).map((moment) => ({ step, moment })),
);

describe.each(places)('$moment $step', ({ step, moment }) => {
  const isThere: Parameters<typeof freezeAt>[0] = (place) =>
    place.kind === 'image-pull' && place.step === step && place.moment === moment;

  test('a crash is made good, and what was done is not done again', async () => {
    const house = await fakeHouse();
    house.oci.offer(DEBIAN, one);
    const { observeStep, reached, thaw } = freezeAt(isThere);
    const doomed = await house.start({ observeStep });
    const { operation } = await doomed.client.call('image-pull', { reference: 'debian:12' });
    await reached;
    await doomed.crash(thaw);
    // A tag that is moved meanwhile is another image, not half of this one.
    house.oci.offer(DEBIAN, two);
    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    const digest = step === 'resolve' && moment === 'before' ? two : one;
    expect(await imagesOf(next)).toMatchObject([{ state: 'ready', oci: { digest } }]);
    expect(house.oci.steps).toEqual(['resolve', 'fetch', 'merge']);
    await agreed(next);
  });

  test('a failure is told and undone, and it can be asked for again', async () => {
    const house = await fakeHouse();
    house.oci.offer(DEBIAN, one);
    let failing = true;
    const daemon = await house.start({
      observeStep: (place) => {
        if (failing && isThere(place)) throw new RoostError('HostError', 'the test says no');
      },
    });
    expect(await daemon.client.finish('image-pull', { reference: 'debian:12' })).toMatchObject({
      state: 'failed',
      error: { class: 'HostError', desc: 'the test says no' },
    });
    expect(await imagesOf(daemon)).toEqual([]);
    await agreed(daemon);
    failing = false;
    await daemon.client.done('image-pull', { reference: 'debian:12' });
    await agreed(daemon);
  });
});

/** Versions and aliases of images in a whole daemon: what a reference means, what stays, what goes. */
import { describe, expect, test } from 'vitest';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { RoostError } from '../../protocol/errors.ts';
import { imageLabel } from '../../protocol/image-reference.ts';
import type { TestClient } from '../harness/test-client.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse, freezeAt } from './fake-house.ts';

const MEBIBYTE = 1024 * 1024;

const withDaemon = async (): Promise<{ house: FakeHouse; daemon: FakeDaemon; client: TestClient }> => {
  const house = await fakeHouse();
  for (const size of [1, 2, 3, 4]) house.images.offer(`/srv/${size}`, size * MEBIBYTE);
  const daemon = await house.start();
  return { house, daemon, client: daemon.client };
};

/** Imports the sizes as versions of that number, in this order. */
const importVersions = async (
  client: TestClient,
  name: string,
  versions: readonly number[],
): Promise<void> => {
  for (const version of versions)
    await client.done('image-import', { name, version: `v${version}`, path: `/srv/${version}` });
};

const labels = async (client: TestClient, names?: string[]): Promise<string[]> => {
  const { images } = await client.call('query-images', names ? { names } : {});
  return images.map(imageLabel);
};

const agreed = async (daemon: FakeDaemon): Promise<void> => {
  expect(await daemon.host()).toEqual(daemon.ledger);
};

/** The size of the disk tells which version a guest was made of. */
const diskOf = async (client: TestClient, guest: string): Promise<number | undefined> =>
  (await client.call('query-guest', { guest })).disks[0]?.sizeBytes;

describe('versions', () => {
  test('are dated, kept beside each other, and the newest is what the name means', async () => {
    const { house, daemon, client } = await withDaemon();
    const day = new Date(house.clock.now()).toISOString().slice(0, 10).replaceAll('-', '');
    await client.done('image-import', { name: 'debian/12', path: '/srv/1' });
    await client.done('guest-create', aGuest('old', { disks: [{ image: 'debian/12' }] }));
    await client.done('image-import', { name: 'debian/12', path: '/srv/2' });
    await client.done('guest-create', aGuest('new', { disks: [{ image: 'debian/12' }] }));
    await client.done('guest-create', aGuest('exact', { disks: [{ image: `debian/12@${day}` }] }));
    expect(await diskOf(client, 'old')).toBe(MEBIBYTE);
    expect(await diskOf(client, 'new')).toBe(2 * MEBIBYTE);
    expect(await diskOf(client, 'exact')).toBe(MEBIBYTE);
    const { images } = await client.call('query-images', {});
    expect(images).toMatchObject([
      { name: 'debian/12', version: `${day}.2`, newest: true, usedBy: ['new'] },
      { name: 'debian/12', version: day, newest: false, usedBy: ['exact', 'old'] },
    ]);
    expect(images[0]?.source).toEqual({ kind: 'file', path: '/srv/2' });
    await agreed(daemon);
  });

  test('one that is still imported, failed or was cancelled changes nothing for those who name the image', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'debian', [1]);
    const failed = await client.finish('image-import', {
      name: 'debian',
      version: 'v9',
      path: '/srv/missing',
    });
    expect(failed).toMatchObject({ state: 'failed', error: { class: 'NotFound' } });
    expect(await labels(client)).toEqual(['debian@v1']);
    await client.done('guest-create', aGuest('web1', { disks: [{ image: 'debian' }] }));
  });

  test('of another kind, of the same version or under an alias are refused', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'debian', [1]);
    await client.done('image-alias-set', { alias: 'stable', image: 'debian' });
    const refusals = [
      [{ name: 'debian', kind: 'kernel' }, 'InvalidArgument'],
      [{ name: 'debian', version: 'v1' }, 'AlreadyExists'],
      [{ name: 'stable' }, 'AlreadyExists'],
    ] as const;
    for (const [request, errorClass] of refusals)
      await expect(client.call('image-import', { path: '/srv/2', ...request })).rejects.toMatchObject({
        class: errorClass,
      });
    expect(await labels(client)).toEqual(['debian@v1']);
  });

  test('of a root are archives, and neither disks nor taken for one', async () => {
    const { house, daemon, client } = await withDaemon();
    for (const [request, errorClass] of [
      [{ kind: 'root', format: 'qcow2' }, 'InvalidArgument'],
      [{ kind: 'root', format: 'docker-archive' }, 'InvalidArgument'],
      [{ kind: 'disk', format: 'tar' }, 'InvalidArgument'],
      [{ kind: 'kernel', format: 'tar' }, 'InvalidArgument'],
    ] as const)
      await expect(
        client.call('image-import', { name: 'system', path: '/srv/1', ...request }),
      ).rejects.toMatchObject({ class: errorClass, data: request });
    house.images.unimportable = 'there is no sqfstar';
    await expect(
      client.call('image-import', { name: 'system', kind: 'root', path: '/srv/1' }),
    ).rejects.toMatchObject({ class: 'Unsupported' });
    house.images.unimportable = undefined;
    expect(await labels(client)).toEqual([]);
    await client.done('image-import', { name: 'system', kind: 'root', format: 'tar', path: '/srv/1' });
    const { images } = await client.call('query-images', {});
    expect(images).toMatchObject([{ name: 'system', kind: 'root', state: 'ready', format: 'raw' }]);
    await expect(
      client.call('guest-create', aGuest('web1', { disks: [{ image: 'system' }] })),
    ).rejects.toMatchObject({ class: 'InvalidArgument', data: { kind: 'root', needed: 'disk' } });
    await client.done('image-build', { recipe: 'debian-root' });
    expect((await client.call('query-images', { names: ['debian-root'] })).images).toMatchObject([
      { name: 'debian-root', kind: 'root', source: { kind: 'build', recipe: 'debian-root' } },
    ]);
    await client.done('image-delete', { image: 'system' });
    expect(await labels(client)).toHaveLength(1);
    await agreed(daemon);
  });

  test('are listed page by page without loss, the newest of a name first', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'b', [2, 1, 3]);
    await importVersions(client, 'a', [4]);
    const all = ['a@v4', 'b@v3', 'b@v1', 'b@v2'];
    expect(await labels(client)).toEqual(all);
    for (const limit of [1, 2, 3]) {
      const seen: string[] = [];
      for (let after: string | undefined, more = true; more; ) {
        const page = await client.call('query-images', { limit, ...(after === undefined ? {} : { after }) });
        seen.push(...page.images.map(imageLabel));
        after = page.next;
        more = page.next !== undefined;
      }
      expect(seen).toEqual(all);
    }
    expect(await labels(client, ['b'])).toEqual(['b@v3', 'b@v1', 'b@v2']);
    expect(await labels(client, ['b@v1', 'a'])).toEqual(['a@v4', 'b@v1']);
  });
});

describe('aliases', () => {
  test('of a name follow the newest, of a version they stay', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'debian/12', [1]);
    await client.done('image-alias-set', { alias: 'stable', image: 'debian/12' });
    await client.done('image-alias-set', { alias: 'golden', image: 'debian/12@v1' });
    await importVersions(client, 'debian/12', [2]);
    await client.done('guest-create', aGuest('web1', { disks: [{ image: 'stable' }] }));
    await client.done('guest-create', aGuest('web2', { disks: [{ image: 'golden' }] }));
    await client.done('guest-create', aGuest('web3', { disks: [{ image: 'stable@v1' }] }));
    expect(await Promise.all(['web1', 'web2', 'web3'].map((name) => diskOf(client, name)))).toEqual([
      2 * MEBIBYTE,
      MEBIBYTE,
      MEBIBYTE,
    ]);
    const { images } = await client.call('query-images', {});
    expect(images.map(({ aliases }) => aliases)).toEqual([['stable'], ['golden']]);
    await expect(client.call('query-images', { names: ['golden@v2'] })).rejects.toMatchObject({
      class: 'NotFound',
    });
    // An alias of an alias is one of what that means.
    await client.done('image-alias-set', { alias: 'best', image: 'golden' });
    await client.done('image-alias-set', { alias: 'golden', image: 'debian/12@v2' });
    expect(await labels(client, ['best'])).toEqual(['debian/12@v1']);
    expect(await labels(client, ['golden'])).toEqual(['debian/12@v2']);
  });

  test('survive a restart, and go with what they mean or when they are told to', async () => {
    const { house, daemon, client } = await withDaemon();
    await importVersions(client, 'debian', [1, 2]);
    await client.done('image-alias-set', { alias: 'one', image: 'debian@v1' });
    await client.done('image-alias-set', { alias: 'any', image: 'debian' });
    await client.done('image-alias-set', { alias: 'gone', image: 'debian' });
    await client.done('image-alias-delete', { alias: 'gone' });
    await daemon.stop();
    const next = (await house.start()).client;
    expect(await labels(next, ['one', 'any'])).toEqual(['debian@v2', 'debian@v1']);
    await expect(next.call('query-images', { names: ['gone'] })).rejects.toMatchObject({ class: 'NotFound' });
    await next.done('image-delete', { image: 'debian@v1' });
    await expect(next.call('query-images', { names: ['one'] })).rejects.toMatchObject({ class: 'NotFound' });
    await next.done('image-delete', { image: 'debian' });
    await expect(next.call('query-images', { names: ['any'] })).rejects.toMatchObject({ class: 'NotFound' });
  });

  test('are refused under the name of an image, and for what is not there', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'debian', [1]);
    const calls = [
      client.call('image-alias-set', { alias: 'debian', image: 'debian@v1' }),
      client.call('image-alias-set', { alias: 'a', image: 'debian@v2' }),
      client.call('image-alias-delete', { alias: 'debian' }),
    ];
    const outcomes = await Promise.allSettled(calls);
    expect(outcomes.map((outcome) => 'reason' in outcome && (outcome.reason as RoostError).class)).toEqual([
      'AlreadyExists',
      'NotFound',
      'NotFound',
    ]);
  });
});

describe('deleting', () => {
  test('a name with several versions needs to be told which; an alias is not what it means', async () => {
    const { daemon, client } = await withDaemon();
    await importVersions(client, 'debian', [1, 2, 3]);
    await client.done('image-alias-set', { alias: 'stable', image: 'debian' });
    await expect(client.call('image-delete', { image: 'debian' })).rejects.toMatchObject({
      class: 'FailedPrecondition',
      data: { versions: ['v3', 'v2', 'v1'] },
    });
    await expect(client.call('image-delete', { image: 'stable' })).rejects.toMatchObject({
      class: 'InvalidArgument',
    });
    await client.done('image-delete', { image: 'debian@v2' });
    expect(await labels(client)).toEqual(['debian@v3', 'debian@v1']);
    await client.done('image-delete', { image: 'debian', allVersions: true });
    expect(await labels(client)).toEqual([]);
    await agreed(daemon);
  });

  test('is refused whole while any version is the base of a guest, naming some of many', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'debian', [1, 2]);
    const names = Array.from({ length: 7 }, (_, index) => `web${index}`);
    for (const name of names)
      await client.done('guest-create', aGuest(name, { disks: [{ image: 'debian@v1' }] }));
    const refusal = {
      class: 'FailedPrecondition',
      message: 'Image debian@v1 is needed by web0, web1, web2, web3, web4 and 2 more',
      data: { image: 'debian@v1', users: 7, usedBy: names },
    };
    for (const request of [{ image: 'debian@v1' }, { image: 'debian', allVersions: true }])
      await expect(client.call('image-delete', request)).rejects.toMatchObject(refusal);
    const { images } = await client.call('query-images', {});
    expect(images.map(({ state }) => state)).toEqual(['ready', 'ready']);
    await client.done('image-delete', { image: 'debian@v2' });
    expect(await labels(client)).toEqual(['debian@v1']);
  });

  test('of an image and making a guest of it: one of the two is refused', async () => {
    const { client } = await withDaemon();
    await importVersions(client, 'debian', [1]);
    const outcomes = await Promise.allSettled([
      client.done('guest-create', aGuest('web1', { disks: [{ image: 'debian' }] })),
      client.done('image-delete', { image: 'debian' }),
    ]);
    expect(outcomes.filter(({ status }) => status === 'rejected')).toHaveLength(1);
    const { guests } = await client.call('query-guests', {});
    expect(await labels(client)).toHaveLength(guests.length);
  });

  test('that failed can be asked for again, and no guest can be made of what may be half gone', async () => {
    const { house, daemon, client } = await withDaemon();
    await importVersions(client, 'debian', [1, 2]);
    const remove = house.images.remove.bind(house.images);
    const first = (await client.call('query-images', {})).images[0];
    house.images.remove = async (id) => {
      if (id === first?.id) throw new RoostError('HostError', 'the test says no');
      await remove(id);
    };
    const failed = await client.finish('image-delete', { image: 'debian', allVersions: true });
    expect(failed).toMatchObject({ state: 'failed', error: { class: 'HostError' } });
    expect((await client.call('query-images', {})).images).toMatchObject([
      { state: 'deleting' },
      { state: 'deleting' },
    ]);
    await expect(
      client.call('guest-create', aGuest('web1', { disks: [{ image: 'debian' }] })),
    ).rejects.toMatchObject({ class: 'FailedPrecondition' });
    house.images.remove = remove;
    await client.done('image-delete', { image: 'debian', allVersions: true });
    expect(await labels(client)).toEqual([]);
    await agreed(daemon);
  });
});

describe('pruning', () => {
  test('keeps the newest, the needed and those that an alias names, and says what went', async () => {
    const { daemon, client } = await withDaemon();
    await importVersions(client, 'debian', [1, 2, 3, 4]);
    await client.done('guest-create', aGuest('web1', { disks: [{ image: 'debian@v2' }] }));
    await client.done('image-alias-set', { alias: 'golden', image: 'debian@v3' });
    const ended = await client.finish('image-prune', { image: 'debian' });
    expect(ended).toMatchObject({ state: 'succeeded', result: { deleted: ['debian@v1'] } });
    expect(await labels(client)).toEqual(['debian@v4', 'debian@v3', 'debian@v2']);
    await client.done('guest-delete', { guest: 'web1' });
    await client.done('image-alias-delete', { alias: 'golden' });
    const more = await client.finish('image-prune', { image: 'debian', keep: 2 });
    expect(more.result).toEqual({ deleted: ['debian@v2'] });
    expect(await client.finish('image-prune', { image: 'debian', keep: 5 })).toMatchObject({
      state: 'succeeded',
      steps: [],
    });
    await agreed(daemon);
  });
});

describe('an import over HTTP', () => {
  const secret = 'https://user:sesame@example.org/debian.qcow2?key=sesame#sesame';
  const shown = 'https://example.org/debian.qcow2';
  const offered = 'https://user:sesame@example.org/debian.qcow2?key=sesame';

  test('shows its URL without what is secret in it, anywhere, also after it has ended', async () => {
    const { house, daemon, client } = await withDaemon();
    house.images.offer(offered, MEBIBYTE);
    const ended = await client.finish('image-import', { name: 'debian', url: secret, idempotencyKey: 'k' });
    expect(ended).toMatchObject({ state: 'succeeded', steps: [{ name: 'download' }, { name: 'copy' }] });
    const { images } = await client.call('query-images', {});
    expect(images).toMatchObject([{ source: { kind: 'url', url: shown } }]);
    const { sqlite } = daemon.daemon.inventory.db;
    const tables = sqlite.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").pluck().all();
    const rows = tables.map((table) => sqlite.prepare(`SELECT * FROM "${String(table)}"`).all());
    expect(JSON.stringify(rows)).toContain(shown);
    expect(JSON.stringify([rows, client.events, ended])).not.toContain('sesame');
  });

  test('needs a path or a URL, not both, and a URL that is one; the refusal does not repeat it', async () => {
    const { client } = await withDaemon();
    const requests = [
      { name: 'debian' },
      { name: 'debian', url: secret, path: '/srv/1' },
      { name: 'debian', url: 'http://user:sesame@:x/' },
      { name: 'debian', url: 'ftp://user:sesame@example.org/' },
    ];
    for (const request of requests) {
      const refusal: unknown = await client.call('image-import', request).catch((error: unknown) => error);
      expect(refusal).toMatchObject({ class: 'InvalidArgument' });
      expect(JSON.stringify(refusal) + String(refusal)).not.toContain('sesame');
    }
    expect(await labels(client)).toEqual([]);
  });

  test('that was cancelled or refused leaves nothing', async () => {
    const { house, daemon, client } = await withDaemon();
    expect(await client.finish('image-import', { name: 'debian', url: secret })).toMatchObject({
      state: 'failed',
      error: { class: 'NotFound' },
    });
    house.images.offer(offered, MEBIBYTE);
    const wrong = { name: 'debian', url: secret, sha512: '0'.repeat(128) };
    expect(await client.finish('image-import', wrong)).toMatchObject({ state: 'failed' });
    expect(await labels(client)).toEqual([]);
    await agreed(daemon);
  });
});

const kinds = {
  'image-import': ['download', 'copy'],
  'image-delete': ['remove v2', 'remove v1'],
  'image-prune': ['remove v2', 'remove v1'],
} as const;
type Kind = keyof typeof kinds;
const places = (Object.keys(kinds) as Kind[]).flatMap((kind) =>
  kinds[kind].flatMap((step) => (['before', 'after'] as const).map((moment) => ({ kind, step, moment }))),
);

const prepare = async (house: FakeHouse, kind: Kind): Promise<void> => {
  for (const size of [1, 2, 3]) house.images.offer(`/srv/${size}`, size * MEBIBYTE);
  house.images.offer('http://example.org/3', MEBIBYTE);
  const daemon = await house.start();
  await importVersions(daemon.client, 'debian', kind === 'image-prune' ? [1, 2, 3] : [1, 2]);
  await daemon.stop();
};

const ask = async (
  client: TestClient,
  kind: Kind,
): Promise<Awaited<ReturnType<typeof client.finish>>['id']> => {
  switch (kind) {
    case 'image-import':
      return (await client.call(kind, { name: 'debian', version: 'v3', url: 'http://example.org/3' }))
        .operation;
    case 'image-delete':
      return (await client.call(kind, { image: 'debian', allVersions: true })).operation;
    case 'image-prune':
      return (await client.call(kind, { image: 'debian' })).operation;
  }
};

const after: Readonly<Record<Kind, readonly string[]>> = {
  'image-import': ['debian@v3', 'debian@v2', 'debian@v1'],
  'image-delete': [],
  'image-prune': ['debian@v3'],
};

describe.each(places)('$moment $step of $kind', ({ kind, step, moment }) => {
  const isThere: Parameters<typeof freezeAt>[0] = (place) =>
    place.kind === kind && place.step === step && place.moment === moment;

  test('a crash is made good by the next daemon, also twice', async () => {
    const house = await fakeHouse();
    await prepare(house, kind);
    const first = freezeAt(isThere);
    const doomed = await house.start({ observeStep: first.observeStep });
    const operation = await ask(doomed.client, kind);
    await first.reached;
    await doomed.crash(first.thaw);
    const last = kinds[kind].at(-1);
    const second = freezeAt((place) => place.kind === kind && place.moment === moment && place.step === last);
    const alsoDoomed = await house.start({ observeStep: second.observeStep });
    const gone = await Promise.race([
      second.reached.then(() => false),
      alsoDoomed.client.call('operation-wait', { operation }).then(() => true),
    ]);
    if (!gone) await alsoDoomed.crash(second.thaw);
    const next = gone ? alsoDoomed : await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(await labels(next.client)).toEqual(after[kind]);
    await agreed(next);
  });

  test('a failure is told, and it can be asked for again', async () => {
    const house = await fakeHouse();
    await prepare(house, kind);
    let failing = true;
    const observeStep: StepObserver = (place) => {
      if (failing && isThere(place)) throw new RoostError('HostError', 'the test says no');
    };
    const daemon = await house.start({ observeStep });
    const { client } = daemon;
    const operation = await ask(client, kind);
    // A removal that failed after the image was gone is done.
    const isDone = moment === 'after' && kind !== 'image-import';
    expect(await client.call('operation-wait', { operation })).toMatchObject(
      isDone
        ? { state: 'succeeded' }
        : { state: 'failed', error: { class: 'HostError', desc: 'the test says no' } },
    );
    await agreed(daemon);
    failing = false;
    // What a deletion took away stays away; the last of it leaves nothing to ask for.
    const left = await labels(client);
    const again = left.length === 0 ? operation : await ask(client, kind);
    expect((await client.call('operation-wait', { operation: again })).state).toBe('succeeded');
    expect(await labels(client)).toEqual(after[kind]);
    await agreed(daemon);
  });
});

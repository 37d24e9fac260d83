/** Building images in a whole daemon: versions, cancelling, refusals, and a crash or a failure at every step. */
import { describe, expect, test } from 'vitest';
import { deferred } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import { type FakeDaemon, fakeHouse, freezeAt } from './fake-house.ts';

const agreed = async (daemon: FakeDaemon): Promise<void> => {
  expect(await daemon.host()).toEqual(daemon.ledger);
};

const places = ['build', 'copy'].flatMap((step) =>
  (['before', 'after'] as const).map((moment) => ({ step, moment })),
);

test('a build is a dated version of its name, and says what it was made of', async () => {
  const house = await fakeHouse();
  const daemon = await house.start();
  const day = new Date(house.clock.now()).toISOString().slice(0, 10).replaceAll('-', '');
  const ended = await daemon.client.finish('image-build', { recipe: 'debian' });
  expect(ended).toMatchObject({ state: 'succeeded', result: { name: 'debian', version: day } });
  await daemon.client.done('image-build', { recipe: 'debian', name: 'other', version: 'v1' });
  const { images } = await daemon.client.call('query-images', {});
  expect(images).toMatchObject([
    {
      name: 'debian',
      version: day,
      state: 'ready',
      source: { kind: 'build', recipe: 'debian', details: { suite: 'bookworm' } },
    },
    { name: 'other', version: 'v1', state: 'ready' },
  ]);
  await agreed(daemon);
});

test('what this host cannot build is refused before anything is done', async () => {
  const house = await fakeHouse();
  house.builder.unbuildable = 'there is no mmdebstrap';
  const daemon = await house.start();
  await expect(daemon.client.call('image-build', { recipe: 'debian' })).rejects.toMatchObject({
    class: 'Unsupported',
  });
  expect(house.builder.builds).toEqual([]);
  expect((await daemon.client.call('query-images', {})).images).toEqual([]);
  await agreed(daemon);
});

test('cancelled in the middle it leaves nothing', async () => {
  const house = await fakeHouse();
  const begun = deferred<void>();
  house.builder.before = ({ signal }) =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      begun.resolve();
    });
  const daemon = await house.start();
  const { operation } = await daemon.client.call('image-build', { recipe: 'debian' });
  await begun.promise;
  const { operations } = await daemon.client.call('query-operations', { ids: [operation] });
  expect(operations[0]).toMatchObject({ state: 'running', progress: { unit: 'percent', total: 100 } });
  await daemon.client.call('operation-cancel', { operation });
  expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({ state: 'cancelled' });
  expect(house.builder.places.size).toBe(0);
  expect((await daemon.client.call('query-images', {})).images).toEqual([]);
  await agreed(daemon);
});

describe.each(places)('$moment $step', ({ step, moment }) => {
  const isThere: Parameters<typeof freezeAt>[0] = (place) =>
    place.kind === 'image-build' && place.step === step && place.moment === moment;

  test('a crash is made good: the next daemon finishes the build', async () => {
    const house = await fakeHouse();
    const { observeStep, reached, thaw } = freezeAt(isThere);
    const doomed = await house.start({ observeStep });
    const { operation } = await doomed.client.call('image-build', { recipe: 'debian' });
    await reached;
    await doomed.crash(thaw);

    const next = await house.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect((await next.client.call('query-images', {})).images).toMatchObject([{ state: 'ready' }]);
    // What was finished before the crash is not built a second time.
    expect(house.builder.builds).toHaveLength(1);
    await agreed(next);
  });

  test('a failure is told and undone, and it can be asked for again', async () => {
    const house = await fakeHouse();
    let failing = true;
    const daemon = await house.start({
      observeStep: (place) => {
        if (failing && isThere(place)) throw new RoostError('HostError', 'the test says no');
      },
    });
    expect(await daemon.client.finish('image-build', { recipe: 'debian' })).toMatchObject({
      state: 'failed',
      error: { class: 'HostError', desc: 'the test says no' },
    });
    expect(house.builder.places.size).toBe(0);
    expect((await daemon.client.call('query-images', {})).images).toEqual([]);
    await agreed(daemon);
    failing = false;
    await daemon.client.done('image-build', { recipe: 'debian' });
    await agreed(daemon);
  });
});

import { expect, it } from 'vitest';
import { aGuest, endedOperation, FakeDaemon, OPERATION, Refusal } from './fake-daemon.ts';
import { runCli } from './run-cli.ts';

const notFound = (): never => {
  throw new Refusal({ class: 'NotFound', desc: 'There is no such image' });
};

/** A daemon that has the given images and runs everything to its end at once. */
const daemonWith = async (here: ReadonlySet<string>): Promise<FakeDaemon> =>
  await FakeDaemon.start({
    'query-image': ({ image }) => (here.has(String(image)) ? {} : notFound()),
    'image-build': () => ({ operation: OPERATION }),
    'image-pull': () => ({ operation: OPERATION }),
    'guest-create': () => ({ operation: OPERATION }),
    'operation-wait': () => endedOperation({ result: { image: 'debian/12' } }),
    'guest-wait': () =>
      aGuest({ state: 'stopped', lastExit: { at: 0, cause: 'guest-shutdown', exitCode: 3 } }),
    'query-guest-log': () => ({ text: '', nextOffset: 0 }),
  });

const parts = ['microvm-kernel', 'microvm-init', 'microvm-upper'];
const run = async (daemon: FakeDaemon): Promise<number> =>
  (await runCli(['--socket', daemon.socketPath, 'run', 'debian:12', 'true'])).code;
const imageOf = (daemon: FakeDaemon): unknown =>
  daemon.calls.find(({ command }) => command === 'guest-create')?.args['program'];

it('runs an image that was pulled before without asking a registry', async () => {
  await using daemon = await daemonWith(new Set([...parts, 'debian/12']));
  expect(await run(daemon)).toBe(3);
  expect(daemon.calls.map(({ command }) => command)).not.toContain('image-pull');
  expect(imageOf(daemon)).toEqual({ image: 'debian/12', command: ['true'] });
});

it('pulls the image and builds the parts that are missing', async () => {
  await using daemon = await daemonWith(new Set(['microvm-kernel']));
  expect(await run(daemon)).toBe(3);
  const made = daemon.calls.flatMap(({ command, args }) =>
    command === 'image-build' || command === 'image-pull' ? [args['recipe'] ?? args['reference']] : [],
  );
  expect(made).toEqual(['microvm-init', 'microvm-upper', 'debian:12']);
  expect(imageOf(daemon)).toEqual({ image: 'debian/12', command: ['true'] });
});

it('asks anew each time, also for a name that was there before', async () => {
  await using daemon = await daemonWith(new Set([...parts, 'debian/12']));
  for (let times = 0; times < 2; times += 1)
    await runCli(['--socket', daemon.socketPath, 'run', '-d', '--name', 'web', 'debian:12', 'true']);
  expect(daemon.keys).toHaveLength(2);
  expect(new Set(daemon.keys).size).toBe(2);
});

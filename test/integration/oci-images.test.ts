/** Pulls by roostd itself, a process that is killed at will, from a registry on the loopback interface. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FakeRegistry } from '../harness/fake-registry.ts';
import { whenDownloadHas } from '../harness/image-server.ts';
import { describeWith } from '../harness/needs.ts';
import { archiveOf, Layout, type LayoutDescriptor, tellTree, unsquash } from '../harness/oci-layout.ts';
import { type DaemonHome, testDaemonHome } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';

const HALF = 200 * 1024;
const PASSWORD = 'open sesame';

interface Made {
  readonly home: DaemonHome;
  readonly registry: FakeRegistry;
  readonly layer: LayoutDescriptor;
  readonly directory: string;
}

const make = async (): Promise<Made> => {
  const directory = await testDirectory();
  const layout = await Layout.make(join(directory, 'layout'));
  const tree = join(directory, 'tree');
  await mkdir(tree);
  await writeFile(join(tree, 'file'), randomBytes(2 * HALF));
  const layer = await layout.layer(await archiveOf(tree, join(directory, 'layer.tar')));
  const registry = await FakeRegistry.start(layout);
  registry.tags.set(
    'v1',
    await layout.image(undefined, [layer], { config: { Cmd: ['/bin/sh', '-c', 'true'] } }),
  );
  return {
    home: await testDaemonHome({ ownNamespace: false }),
    registry,
    layer: layer.descriptor,
    directory,
  };
};

const imagesIn = (home: DaemonHome): Promise<string[]> =>
  readdir(join(home.stateDirectory, 'images')).catch(() => []);

const agreed = async (home: DaemonHome): Promise<void> => {
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};

describeWith(['root', 'sqfstar'], 'a pull', () => {
  test('by the command line, with a password that is nowhere afterwards', async () => {
    const { home, registry, directory } = await make();
    registry.auth = { kind: 'token', username: 'me', password: PASSWORD };
    const daemon = await home.start();
    const reference = registry.reference('v1');
    const pull = ['image', 'pull', reference, '--name', 'app', '--username', 'me'];
    const pulled = await runRoost(home, pull, { stdin: `${PASSWORD}\n` });
    expect(pulled).toMatchObject({ code: 0, stdout: expect.stringMatching(/ pulled as app@\d{8}\n$/) });
    const again = await runRoost(home, pull, { stdin: `${PASSWORD}\n` });
    expect(again).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/ is here already as app@\d{8}\n$/),
    });
    expect(await runRoost(home, pull, { stdin: 'wrong\n' })).toMatchObject({
      code: expect.any(Number),
      stderr: expect.stringContaining('does not give out'),
    });
    const shown = await runRoost(home, ['image', 'show', 'app']);
    expect(shown.stdout).toMatch(/^command: +\/bin\/sh -c true$/m);
    expect(shown.stdout).toContain(reference);
    const { id } = await daemon.client.call('query-image', { image: 'app' });
    const disk = join(home.stateDirectory, 'images', id, 'image.raw');
    expect(await tellTree(await unsquash(disk, join(directory, 'unpacked')))).toEqual(
      await tellTree(join(directory, 'tree')),
    );
    const journal = await daemon.client.call('query-operations', { limit: 100 });
    for (const { id: operation } of journal.operations)
      expect(JSON.stringify(await daemon.client.call('query-operation', { operation }))).not.toContain(
        PASSWORD,
      );
    await daemon.succeed('image-delete', { image: 'app' });
    expect(await imagesIn(home)).toEqual([]);
    await daemon.stop();
    expect(daemon.log()).not.toContain(PASSWORD);
    const left = await readdir(home.stateDirectory, { recursive: true, withFileTypes: true });
    const holding: string[] = [];
    for (const file of left.filter((entry) => entry.isFile()))
      if ((await readFile(join(file.parentPath, file.name))).includes(PASSWORD)) holding.push(file.name);
    expect(holding).toEqual([]);
    await agreed(home);
  });

  test('goes on where a killed daemon left it', async () => {
    const { home, registry, layer } = await make();
    const blob = `blobs/${layer.digest}`;
    const stalled = new Promise<void>((resolve) => {
      registry.onStall = resolve;
    });
    registry.next(blob, { stallAfter: HALF });
    const doomed = await home.start();
    const { operation, id } = await doomed.client.call('image-pull', { reference: registry.reference('v1') });
    await stalled;
    await whenDownloadHas(join(home.stateDirectory, 'images', `.working-${id}`), 1);
    await doomed.kill9();
    registry.asked.length = 0;
    const next = await home.start();
    expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
    expect(registry.asked).toMatchObject([{ path: blob, range: expect.stringMatching(/^bytes=[1-9]\d*-$/) }]);
    await next.stop();
    await agreed(home);
  });

  test.each(['resolve', 'fetch', 'merge', 'copy'])(
    'is finished by the next daemon after a crash behind %s',
    async (step) => {
      const { home, registry } = await make();
      const doomed = await home.start({ crashAt: `image-pull/${step}/after` });
      const { operation } = await doomed.client.call('image-pull', { reference: registry.reference('v1') });
      await doomed.ended;
      const asked = registry.asked.length;
      const next = await home.start();
      expect(await next.client.call('operation-wait', { operation })).toMatchObject({ state: 'succeeded' });
      // Nothing is fetched a second time.
      expect(registry.asked.length - asked).toBe(step === 'resolve' ? 1 : 0);
      const { images } = await next.client.call('query-images', {});
      expect(await imagesIn(home)).toEqual(images.map(({ id }) => id));
      await next.stop();
      await agreed(home);
    },
  );

  test('that is refused or cancelled leaves nothing', async () => {
    const { home, registry, layer } = await make();
    const daemon = await home.start();
    const blob = `blobs/${layer.digest}`;
    registry.next(blob, { content: randomBytes(layer.size) });
    const reference = registry.reference('v1');
    expect(await daemon.change('image-pull', { reference })).toMatchObject({
      state: 'failed',
      error: { class: 'InvalidArgument' },
    });
    expect(await imagesIn(home)).toEqual([]);
    const stalled = new Promise<void>((resolve) => {
      registry.onStall = resolve;
    });
    registry.next(blob, { stallAfter: HALF });
    const { operation } = await daemon.client.call('image-pull', { reference });
    await stalled;
    await daemon.client.call('operation-cancel', { operation });
    expect(await daemon.client.call('operation-wait', { operation })).toMatchObject({ state: 'cancelled' });
    expect(await imagesIn(home)).toEqual([]);
    await daemon.stop();
    await agreed(home);
  });
});

/** Containers over an image that is unpacked, as on kernels that map no ids of a squashfs. */
import { access, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import {
  agentUp,
  beginWithBusybox,
  type ContainerHome,
  container,
  shellIn,
  startContainer,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { runRoost } from '../harness/roost-cli.ts';

const lower = 'tree';

/** Where the image of a container is unpacked, as its command line has it. */
const treeOf = async ({ daemon }: Pick<ContainerHome, 'daemon'>, guest: string): Promise<string> => {
  const { argv } = await daemon.client.call('guest-plan', { guest });
  expect(argv).not.toContain('--image');
  return argv[argv.indexOf('--lower') + 1] ?? 'none';
};

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container over a tree', () => {
  it('shares it with others, lives, is saved and cloned, and the tree goes with its image', async () => {
    const at = await beginWithBusybox({ lower });
    const { home, daemon } = at;
    await daemon.succeed('guest-create', container('one'));
    const tree = await treeOf(at, 'one');
    expect(await isThere(tree)).toBe(false);
    await daemon.succeed('guest-start', { guest: 'one' });
    await startContainer(at, 'two');
    await agentUp(daemon, 'one');
    expect(await treeOf(at, 'two')).toBe(tree);
    expect(await shellIn(at, 'one')('stat -c "%a %u:%g" / /bin/busybox /tmp')).toBe(
      '755 0:0\n755 0:0\n1777 0:0',
    );
    const write = 'echo mine >/root/kept; rm /etc/hosts; echo root::0:0::/:/bin/sh >/etc/passwd';
    await shellIn(at, 'one')(write);
    expect(await shellIn(at, 'two')('ls /etc/hosts /root; grep -c . /etc/passwd')).toBe(
      '/etc/hosts\n\n/root:\n2',
    );
    expect(await readdir(join(tree, 'root'))).toEqual([]);

    await daemon.succeed('guest-pause', { guest: 'one' });
    await daemon.succeed('guest-resume', { guest: 'one' });
    await daemon.kill9();
    const next = await home.start({ lower });
    await agentUp(next, 'one');
    await next.succeed('guest-stop', { guest: 'one' });
    expect((await runRoost(home, ['save', 'one', 'saved'])).code).toBe(0);
    await next.succeed('guest-clone', { guest: 'one', name: 'copy', start: true });
    await next.succeed('guest-create', { ...container('other', { image: 'saved' }), start: true });
    for (const name of ['copy', 'other']) {
      await agentUp(next, name);
      expect(await shellIn(at, name)('cat /root/kept; ls /etc/hosts 2>&1 || true')).toContain('mine\nls: ');
    }
    const saved = await treeOf({ daemon: next }, 'other');
    expect(saved).not.toBe(tree);
    await next.succeed('guest-delete', { guest: 'other', force: true });
    await next.succeed('image-delete', { image: 'saved' });
    expect(await isThere(dirname(dirname(saved)))).toBe(false);
    expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });
    await leaveNothing({ home, daemon: next });
  });

  it.each(['guest-start/volumes/before', 'guest-start/volumes/after', 'guest-start/launch/after'])(
    'is started by the next daemon where one is killed at %s',
    async (crashAt) => {
      const at = await beginWithBusybox({ lower });
      const { home } = at;
      await at.daemon.succeed('guest-create', container('one'));
      const tree = await treeOf(at, 'one');
      await at.daemon.stop();
      const doomed = await home.start({ lower, crashAt });
      await expect(doomed.change('guest-start', { guest: 'one' })).rejects.toThrow(/connection/i);
      await doomed.ended;
      expect(await isThere(tree)).toBe(crashAt !== 'guest-start/volumes/before');
      const daemon = await home.start({ lower });
      await agentUp(daemon, 'one');
      expect(await readdir(dirname(dirname(tree)))).not.toContain('.partial-tree');
      await leaveNothing({ home, daemon });
    },
  );
});

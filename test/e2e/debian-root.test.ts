/** The root file system of a Debian, built out of packages and taken in as from outside. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { launcherPath, splicePath } from '../../native/index.ts';
import { imageStore } from '../../storage/images/image-store.ts';
import { newImage } from '../conformance/image-store.ts';
import { work } from '../conformance/pool.ts';
import { debianImageTimeoutMs, debianRoot } from '../guests/debian-image.ts';
import { describeWith } from '../harness/needs.ts';
import { type ToldTree, tellTree, unsquash } from '../harness/oci-layout.ts';
import { testDirectory } from '../harness/test-directory.ts';

const kindsIn = (told: ToldTree): ReadonlySet<string> =>
  new Set(Object.values(told).map(({ mode }) => String(mode).slice(0, -4)));

describeWith(['root', 'mmdebstrap', 'sqfstar'], 'the root file system of a Debian', () => {
  it('is a whole system without a machine under it', { timeout: debianImageTimeoutMs }, async () => {
    const place = await testDirectory('debian-root');
    const store = imageStore({
      path: join(place, 'images'),
      launcherPath: launcherPath(),
      splicePath: splicePath(),
      importer: { uid: 2_000_000_102, gid: 2_000_000_102 },
    });
    const id = newImage();
    const from = { kind: 'file', path: await debianRoot() } as const;
    const image = await store.import({ id, kind: 'root', format: 'tar', from }, work());
    const tree = await unsquash(store.source(id, image).path, join(place, 'tree'));
    const told = await tellTree(tree);
    expect(told).toHaveProperty(['usr/lib/systemd/systemd']);
    expect(told['sbin']).toMatchObject({ content: 'usr/sbin' });
    expect(told['usr/bin/su']).toMatchObject({ mode: '0o104755', uid: 0 });
    expect(told['etc/machine-id']).toMatchObject({ size: 0 });
    expect(told['etc/resolv.conf']).toMatchObject({ content: '../run/systemd/resolve/stub-resolv.conf' });
    for (const absent of ['etc/hostname', 'etc/.resolv.conf.systemd-resolved.bak', 'usr/sbin/ifup'])
      expect(told).not.toHaveProperty([absent]);
    expect(await readdir(join(tree, 'dev'))).toEqual([]);
    expect(await readdir(join(tree, 'boot'))).toEqual([]);
    // Directories, files and links, and nothing else.
    expect([...kindsIn(told)].sort()).toEqual(['0o10', '0o12', '0o4']);
  });
});

import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildInitramfs, moduleList } from '../../guest/initramfs.ts';
import { exec } from '../../lib/exec.ts';
import { testDirectory } from '../harness/test-directory.ts';

const never = new AbortController().signal;
const module = (name: string, ...dependsOn: string[]) => ({ name, path: `kernel/${name}.ko`, dependsOn });

/** The bytes of a module that needs others, as far as anybody looks at them. */
const elfThatNeeds = (names: readonly string[]): Buffer => {
  const info = Buffer.from(`license=GPL\0depends=${names.join(',')}\0`);
  const strings = Buffer.from('\0.modinfo\0.shstrtab\0');
  const elf = Buffer.alloc(64 + 3 * 64);
  elf.write('\x7fELF\x02\x01', 0, 'latin1');
  elf.writeBigUInt64LE(64n, 0x28);
  elf.writeUInt16LE(64, 0x3a);
  elf.writeUInt16LE(3, 0x3c);
  elf.writeUInt16LE(2, 0x3e);
  const section = (index: number, name: number, offset: number, size: number): void => {
    const at = 64 + index * 64;
    elf.writeUInt32LE(name, at);
    elf.writeBigUInt64LE(BigInt(offset), at + 0x18);
    elf.writeBigUInt64LE(BigInt(size), at + 0x20);
  };
  section(1, 1, elf.length, info.length);
  section(2, 10, elf.length + info.length, strings.length);
  return Buffer.concat([elf, info, strings]);
};

describe('the initramfs of microVMs', () => {
  it('lists each module after what it needs, under the word that wants it', () => {
    const modules = [module('ring'), module('virtio', 'ring'), module('blk', 'virtio'), module('fs', 'ring')];
    expect(
      moduleList(modules, [
        ['always', ['blk']],
        ['fs', ['fs']],
        ['none', []],
      ]),
    ).toBe('always ring.ko\nalways virtio.ko\nalways blk.ko\nfs ring.ko\nfs fs.ko\n');
  });

  it('has the init, the list and the modules; what the kernel has itself it leaves out', async () => {
    const folder = await testDirectory('modules');
    const files: Readonly<Record<string, readonly string[]>> = {
      'kernel/virtio/virtio_ring.ko': [],
      'kernel/virtio/virtio.ko': ['virtio_ring'],
      'kernel/virtio/virtio_pci.ko': ['virtio', 'virtio_ring'],
      'kernel/virtio/virtio_mmio.ko': ['virtio'],
      'kernel/block/virtio_blk.ko': ['virtio'],
      'kernel/char/virtio_console.ko': ['virtio'],
      'kernel/fs/overlay.ko': [],
      'kernel/net/virtio_net.ko': ['virtio'],
      'kernel/char/virtio-rng.ko': ['virtio'],
      'kernel/fs/squashfs.ko': [],
      'kernel/fs/erofs.ko': [],
      'kernel/fs/virtiofs.ko': ['virtio'],
      'kernel/net/vmw_vsock_virtio_transport.ko': ['virtio'],
    };
    for (const [path, needs] of Object.entries(files)) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), elfThatNeeds(needs));
    }
    await writeFile(join(folder, 'modules.builtin'), 'kernel/fs/ext4/ext4.ko\n');
    const init = join(folder, 'init');
    await writeFile(init, 'the init');
    const archive = await buildInitramfs({ init, moduleFolder: folder });
    const { stdout } = await exec(['busybox', 'cpio', '-t'], { input: archive, signal: never });
    const names = stdout.trimEnd().split('\n');
    expect(names).toEqual(
      expect.arrayContaining(['init', 'dev/console', 'lower', 'upper', 'root', 'lib/roost/modules']),
    );
    expect(names.filter((name) => name.endsWith('.ko'))).toHaveLength(13);
    expect(names).not.toContain('lib/roost/ext4.ko');
    // The same ingredients, the same bytes.
    expect((await buildInitramfs({ init, moduleFolder: folder })).equals(archive)).toBe(true);
    await writeFile(join(folder, 'modules.builtin'), '');
    await expect(buildInitramfs({ init, moduleFolder: folder })).rejects.toThrow('no module ext4');
  });
});

/** Disk images that want something of whoever imports them, as files made by qemu-img and by hand. */
import { execFile } from 'node:child_process';
import { open, truncate, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { ImageSourceFormat } from '../../protocol/image.ts';

const run = promisify(execFile);
const SECTOR_BYTES = 512;
const EIGHT_EIB = Buffer.from('00feffffffffff7f', 'hex');

export interface EvilImage {
  readonly what: string;
  readonly format: ImageSourceFormat;
  /** As in the data of the error. */
  readonly flaw: string;
  readonly make: (path: string) => Promise<void>;
}

const qemuImg = (...args: readonly string[]): Promise<unknown> => run('qemu-img', args);

/** A qcow2 or other image with something in it. */
const newImage = async (path: string, format: string, ...options: readonly string[]): Promise<void> => {
  await qemuImg('create', '-q', '-f', format, ...options, path, '1M');
  await run('qemu-io', ['-f', format, '-c', 'write -q -P 7 0 1M', path]);
};

const patch = async (path: string, at: number, bytes: Uint8Array): Promise<void> => {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, at);
};

/** The text in the second sector of a VMDK that qemu-img made, with something in it replaced by as long a text. */
const patchDescriptor = async (path: string, before: RegExp, after: string): Promise<void> => {
  await using file = await open(path, 'r+');
  const { buffer } = await file.read(Buffer.alloc(20 * SECTOR_BYTES), 0, 20 * SECTOR_BYTES, SECTOR_BYTES);
  const text = buffer.toString('latin1').replace(before, after);
  await file.write(
    Buffer.from(text.slice(0, buffer.length).padEnd(buffer.length, '\0'), 'latin1'),
    0,
    buffer.length,
    SECTOR_BYTES,
  );
};

const streamOptimized = ['-o', 'subformat=streamOptimized'];

export const evilImages: readonly EvilImage[] = [
  {
    what: 'a qcow2 over a file of the host',
    format: 'qcow2',
    flaw: 'backing-file',
    make: (path) =>
      qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/passwd', path).then(() => undefined),
  },
  {
    what: 'a qcow2 whose data is a file of the host',
    format: 'qcow2',
    flaw: 'data-file',
    make: async (path) => {
      await qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${path}.data`, path, '1M');
      await truncate(`${path}.data`, 0);
    },
  },
  {
    what: 'a qcow2 whose data is a raw file of the host',
    format: 'qcow2',
    flaw: 'data-file',
    make: (path) =>
      qemuImg(
        'create',
        '-q',
        '-f',
        'qcow2',
        '-o',
        `data_file=${path}.data,data_file_raw=on`,
        path,
        '1M',
      ).then(() => undefined),
  },
  {
    what: 'a qcow2 of 8 EiB',
    format: 'qcow2',
    flaw: 'too-large',
    make: async (path) => {
      await newImage(path, 'qcow2');
      await patch(path, 24, Buffer.from(EIGHT_EIB).reverse());
    },
  },
  {
    what: 'a qcow2 that was cut off',
    format: 'qcow2',
    flaw: 'damaged',
    make: async (path) => {
      await newImage(path, 'qcow2');
      await truncate(path, 600_000);
    },
  },
  {
    what: 'a VMDK descriptor whose extent is a file of the host',
    format: 'vmdk',
    flaw: 'other-files',
    make: (path) =>
      writeFile(
        path,
        '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n',
      ),
  },
  {
    what: 'a VMDK whose header leaves the size to its descriptor',
    format: 'vmdk',
    flaw: 'empty',
    make: async (path) => {
      await newImage(path, 'vmdk');
      await patch(path, 12, Buffer.alloc(8));
      await patchDescriptor(path, /RW \d+ SPARSE "[^"]*"/, 'RW 8 FLAT "/etc/passwd" 0');
    },
  },
  {
    what: 'a VMDK with an extent elsewhere besides its own',
    format: 'vmdk',
    flaw: 'other-files',
    make: async (path) => {
      await newImage(path, 'vmdk');
      await patchDescriptor(path, /RW \d+ SPARSE "[^"]*"/, '$&\nRW 8 FLAT "/etc/passwd" 0');
    },
  },
  {
    what: 'a VMDK with a parent',
    format: 'vmdk',
    flaw: 'parent',
    make: async (path) => {
      await newImage(path, 'vmdk');
      await patchDescriptor(
        path,
        /parentCID=ffffffff/,
        'parentCID=12345678\nparentFileNameHint="/etc/passwd"',
      );
    },
  },
  {
    what: 'a VMDK of 8 EiB',
    format: 'vmdk',
    flaw: 'too-large',
    make: async (path) => {
      await newImage(path, 'vmdk');
      await patch(path, 12, EIGHT_EIB);
    },
  },
  {
    what: 'a VMDK that was cut off',
    format: 'vmdk',
    flaw: 'damaged',
    make: async (path) => {
      await newImage(path, 'vmdk');
      await truncate(path, 600_000);
    },
  },
  {
    what: 'a VMDK stream that was cut off before its footer',
    format: 'vmdk',
    flaw: 'damaged',
    make: async (path) => {
      await newImage(`${path}.raw`, 'raw');
      await qemuImg('convert', '-f', 'raw', '-O', 'vmdk', ...streamOptimized, `${path}.raw`, path);
      await truncate(path, 70_000);
    },
  },
  {
    what: 'a VHDX with a parent',
    format: 'vhdx',
    flaw: 'parent',
    make: async (path) => {
      await newImage(path, 'vhdx');
      await using file = await open(path, 'r+');
      const { buffer } = await file.read(Buffer.alloc(4 * 1024 * 1024), 0, 4 * 1024 * 1024, 0);
      const table = buffer.indexOf('metadata');
      const entry = buffer.indexOf(Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex'), table);
      const at = table + buffer.readUInt32LE(entry + 16) + 4;
      await file.write(Buffer.from([buffer.readUInt8(at) | 0b10]), 0, 1, at);
    },
  },
  {
    what: 'a VHDX that was cut off',
    format: 'vhdx',
    flaw: 'damaged',
    make: async (path) => {
      await newImage(path, 'vhdx');
      await truncate(path, 200_000);
    },
  },
  {
    what: 'a text that is no image of the format',
    format: 'vhdx',
    flaw: 'not-vhdx',
    make: (path) => writeFile(path, 'root:x:0:0:root:/root:/bin/bash\n'),
  },
];

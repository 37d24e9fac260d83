import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { extractPvhKernel, hasPvhEntry, kernelPayload } from '../../guest/pvh-kernel.ts';
import { exec } from '../../lib/exec.ts';
import { testDirectory } from '../harness/test-directory.ts';

const never = new AbortController().signal;

const note = (name: string, type: number): Buffer => {
  const bytes = Buffer.alloc(12 + 4 + 8);
  bytes.writeUInt32LE(4, 0);
  bytes.writeUInt32LE(8, 4);
  bytes.writeUInt32LE(type, 8);
  bytes.write(name, 12, 'latin1');
  return bytes;
};

/** An ELF file of one program header, which holds these notes. */
const elfWith = (notes: Buffer): Buffer => {
  const elf = Buffer.alloc(64 + 56);
  elf.write('\x7fELF\x02\x01', 0, 'latin1');
  elf.writeBigUInt64LE(64n, 0x20);
  elf.writeUInt16LE(56, 0x36);
  elf.writeUInt16LE(1, 0x38);
  elf.writeUInt32LE(4, 64);
  elf.writeBigUInt64LE(BigInt(elf.length), 64 + 8);
  elf.writeBigUInt64LE(BigInt(notes.length), 64 + 0x20);
  return Buffer.concat([elf, notes]);
};

const bootable = elfWith(Buffer.concat([note('GNU\0', 1), note('Xen\0', 18)]));

const bzImage = (payload: Buffer): Buffer => {
  const image = Buffer.alloc(1024 + 256);
  image.writeUInt8(1, 0x1f1);
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(0x020f, 0x206);
  image.writeUInt32LE(256, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([image, payload, Buffer.alloc(100, 7)]);
};

const reading =
  (bytes: Buffer) =>
  async (offset: number, length: number): Promise<Buffer> =>
    bytes.subarray(offset, offset + length);

describe('a kernel for microVMs', () => {
  const size = Buffer.alloc(4);
  it.each([
    ['gzip', async (elf: Buffer) => gzipSync(elf)],
    ['lz4', async (elf: Buffer, path: string) => await packed(['lz4', '-q', '-l', '-f'], elf, path, '.lz4')],
    [
      'xz',
      async (elf: Buffer, path: string) => await packed(['xz', '-k', '--check=crc32'], elf, path, '.xz'),
    ],
  ] as const)('is taken out of a bzImage packed with %s', async (_name, pack) => {
    const directory = await testDirectory('kernel');
    const payload = await pack(bootable, join(directory, 'elf'));
    await writeFile(
      join(directory, 'vmlinuz'),
      bzImage(_name === 'gzip' ? payload : Buffer.concat([payload, size])),
    );
    await extractPvhKernel(join(directory, 'vmlinuz'), join(directory, 'vmlinux'), never);
    expect((await readFile(join(directory, 'vmlinux'))).equals(bootable)).toBe(true);
    expect((await readdir(directory)).filter((name) => name.includes('new'))).toEqual([]);
  });

  it('has to have the entry; without it nothing is left behind', async () => {
    const directory = await testDirectory('kernel');
    await writeFile(join(directory, 'vmlinuz'), bzImage(gzipSync(elfWith(note('Xen\0', 6)))));
    await expect(
      extractPvhKernel(join(directory, 'vmlinuz'), join(directory, 'vmlinux'), never),
    ).rejects.toMatchObject({ class: 'InvalidArgument', message: expect.stringContaining('PVH') as string });
    await writeFile(join(directory, 'vmlinuz'), bzImage(Buffer.from([0x1f, 0x8b, 8, 0, 1, 2, 3])));
    await expect(
      extractPvhKernel(join(directory, 'vmlinuz'), join(directory, 'vmlinux'), never),
    ).rejects.toMatchObject({ class: 'HostError' });
    expect(await readdir(directory)).toEqual(['vmlinuz']);
  });

  it('of any bytes is one, or refused', () => {
    expect(() => kernelPayload(Buffer.alloc(0))).toThrow('no bzImage');
    expect(() => kernelPayload(bzImage(Buffer.from('what is this')))).toThrow('not known');
    fc.assert(
      fc.property(fc.nat({ max: 0x2ff }), fc.nat({ max: 255 }), (at, byte) => {
        const image = bzImage(gzipSync(bootable));
        image[at] = byte;
        const outcome = outcomeOf(() => kernelPayload(image).compression.package);
        expect(['gzip', 'InvalidArgument']).toContain(outcome);
      }),
    );
  });

  it('of any ELF header has the entry or not', async () => {
    expect(await hasPvhEntry(reading(bootable))).toBe(true);
    expect(await hasPvhEntry(reading(elfWith(note('Xen\0', 17))))).toBe(false);
    expect(await hasPvhEntry(reading(elfWith(note('xen\0', 18))))).toBe(false);
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: bootable.length - 1 }), fc.nat({ max: 255 }), async (at, byte) => {
        const elf = Buffer.from(bootable);
        elf[at] = byte;
        expect(typeof (await hasPvhEntry(reading(elf)))).toBe('boolean');
      }),
    );
  });
});

/** What a tool makes of it. */
const packed = async (
  argv: readonly [string, ...string[]],
  elf: Buffer,
  path: string,
  suffix: string,
): Promise<Buffer> => {
  await writeFile(path, elf);
  await exec([...argv, path, ...(suffix === '.lz4' ? [`${path}${suffix}`] : [])], { signal: never });
  return await readFile(`${path}${suffix}`);
};

const outcomeOf = (look: () => string): string => {
  try {
    return look();
  } catch (error) {
    return (error as { class?: string }).class ?? String(error);
  }
};

import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RoostError } from '../../../../protocol/errors.ts';
import { type TarEntry, tarEntries } from '../../../../storage/oci/tree/tar-entries.ts';
import { type HeaderContent, readHeader, writeHeader } from '../../../../storage/oci/tree/tar-header.ts';

const read = async (bytes: Buffer): Promise<TarEntry[]> => {
  const directory = await mkdtemp(join(tmpdir(), 'tar-'));
  const path = join(directory, 'a.tar');
  await writeFile(path, bytes);
  const entries: TarEntry[] = [];
  try {
    await using file = await open(path);
    for await (const entry of tarEntries(file, bytes.length)) entries.push(entry);
  } finally {
    await rm(directory, { recursive: true });
  }
  return entries;
};

const content = (changes: Partial<HeaderContent> = {}): HeaderContent => ({
  type: 'file',
  name: 'f',
  linkName: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtime: 0,
  major: 0,
  minor: 0,
  xattrs: [],
  ...changes,
});

/** A plain header with some of its bytes changed, and its sum mended. */
const patched = (header: Buffer, change: (block: Buffer) => void): Buffer => {
  const block = Buffer.from(header);
  change(block);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
};

const padded = (text: string): Buffer => {
  const bytes = Buffer.alloc(Math.ceil(text.length / 512) * 512);
  bytes.write(text, 'latin1');
  return bytes;
};

const pax = (...records: string[]): Buffer => {
  const text = records
    .map((record) => {
      const rest = record.length + 2;
      const length = [1, 2, 3]
        .map((digits) => rest + digits)
        .find((each) => rest + `${each}`.length === each);
      return `${length} ${record}\n`;
    })
    .join('');
  const header = patched(writeHeader(content({ name: 'pax', sizeBytes: text.length })), (block) => {
    block.write('x', 156);
  });
  return Buffer.concat([header, padded(text)]);
};

const typed = (type: string, changes: Partial<HeaderContent> = {}): Buffer =>
  patched(writeHeader(content(changes)), (block) => void block.write(type, 156, 'latin1'));

const byteText = (maxLength: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: 1, maxLength }).map((bytes) => Buffer.from(bytes).toString('latin1'));
const nameText = byteText(300).map((name) => name.replace(/[\0/]/g, '_'));

describe('a header', () => {
  it('says what was put in, whatever the bytes', async () => {
    const made = fc.record({
      type: fc.constantFrom('file', 'symlink', 'character', 'block', 'fifo', 'directory', 'link'),
      name: nameText,
      linkName: nameText,
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      mtime: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      major: fc.integer({ min: 0, max: 4095 }),
      minor: fc.integer({ min: 0, max: 0xfffff }),
      xattrs: fc.array(fc.tuple(fc.stringMatching(/^user\.[a-z.]{1,20}$/), byteText(200)), { maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(made, { minLength: 1, maxLength: 4 }), async (entries) => {
        const archive = Buffer.concat(entries.map((entry) => writeHeader({ ...entry, sizeBytes: 0 })));
        const expected = entries.map((entry) => ({ ...entry, sizeBytes: 0, data: [] }));
        expect(await read(archive)).toEqual(expected);
      }),
      { numRuns: 50 },
    );
  });

  it('has sizes beyond 8 GiB in an extended one', () => {
    const header = writeHeader(content({ sizeBytes: 2 ** 40 }));
    expect(header.toString('latin1')).toContain(` size=${2 ** 40}\n`);
  });

  it('may have numbers in base 256, and sums of signed bytes', () => {
    const block = patched(writeHeader(content()), (bytes) => {
      bytes.fill(0, 108, 116);
      bytes.writeUIntBE(0x80, 108, 1);
      bytes.writeUIntBE(4_000_000_000, 110, 6);
      bytes.write('\xff', 0, 'latin1');
    });
    expect(readHeader(block).uid).toBe(4_000_000_000);
    const signed = Buffer.from(block);
    signed.fill(0x20, 148, 156);
    const sum = signed.reduce((total, byte) => total + ((byte << 24) >> 24), 0);
    signed.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    expect(readHeader(signed).name).toBe('\xff');
  });
});

describe('an archive', () => {
  it('of old has long names of GNU, names in two parts, and directories by their slash', async () => {
    const long = `${'d/'.repeat(80)}file`;
    const archive = Buffer.concat([
      typed('L', { name: '././@LongLink', sizeBytes: long.length + 1 }),
      padded(`${long}\0`),
      typed('K', { name: '././@LongLink', sizeBytes: long.length + 1 }),
      padded(`${long}\0`),
      typed('2', { name: 'short', linkName: 'short' }),
      patched(writeHeader(content({ name: 'name' })), (block) => void block.write('prefix', 345)),
      typed('\0', { name: 'old/' }),
      typed('\0', { name: 'plain', sizeBytes: 3 }),
      padded('abc'),
    ]);
    expect(await read(archive)).toMatchObject([
      { type: 'symlink', name: long, linkName: long },
      { type: 'file', name: 'prefix/name' },
      { type: 'directory', name: 'old/' },
      { type: 'file', name: 'plain', sizeBytes: 3, data: [{ length: 3 }] },
    ]);
  });

  it('ends at a block of zeros, or at its end', async () => {
    const file = writeHeader(content());
    expect(await read(Buffer.concat([file, Buffer.alloc(512), file]))).toHaveLength(1);
    expect(await read(file)).toHaveLength(1);
    expect(await read(Buffer.alloc(0))).toHaveLength(0);
  });

  it('has sparse files in every form, with zeros between the pieces', async () => {
    const sparse = [
      { offset: undefined, length: 1000 },
      { offset: expect.any(Number), length: 24 },
      { offset: undefined, length: 976 },
    ];
    const old = patched(writeHeader(content({ sizeBytes: 24 })), (block) => {
      block.write('S', 156);
      block.fill(0, 345, 512);
      block.write('ustar  \0', 257, 'latin1');
      block.write('00000001750\0', 386);
      block.write('00000000030\0', 398);
      block.write('00000003720\0', 483);
    });
    const archive = Buffer.concat([
      old,
      padded('x'.repeat(24)),
      pax('GNU.sparse.size=2000', 'GNU.sparse.numblocks=1', 'GNU.sparse.map=1000,24', 'GNU.sparse.name=n'),
      writeHeader(content({ sizeBytes: 24 })),
      padded('x'.repeat(24)),
      pax('GNU.sparse.major=1', 'GNU.sparse.minor=0', 'GNU.sparse.realsize=2000', 'GNU.sparse.name=n'),
      writeHeader(content({ sizeBytes: 512 + 24 })),
      padded('1\n1000\n24\n'),
      padded('x'.repeat(24)),
      writeHeader(content({ name: 'last' })),
    ]);
    expect(await read(archive)).toMatchObject([
      { name: 'f', sizeBytes: 2000, data: sparse },
      { name: 'n', sizeBytes: 2000, data: sparse },
      { name: 'n', sizeBytes: 2000, data: sparse },
      { name: 'last' },
    ]);
  });

  it.each([
    ['with a wrong sum', Buffer.alloc(512, 1)],
    ['that ends in a header', Buffer.alloc(100, 1)],
    ['that ends in a file', writeHeader(content({ sizeBytes: 10 }))],
    ['with an extended header of 2 MiB', typed('x', { sizeBytes: 2 * 1024 ** 2 })],
    ['with a record that is none', Buffer.concat([typed('x', { sizeBytes: 10 }), padded('9999 path=')])],
    ['with a size that is none', Buffer.concat([pax('size=1e9'), writeHeader(content())])],
    ['with a negative size', Buffer.concat([pax('size=-512'), writeHeader(content())])],
    ['with an owner out of range', Buffer.concat([pax('uid=4294967295'), writeHeader(content())])],
    ['with a zero in a name', Buffer.concat([pax('path=a\0b'), writeHeader(content())])],
    [
      'with a sparse map that overlaps',
      Buffer.concat([
        pax('GNU.sparse.size=9', 'GNU.sparse.map=0,5,3,5'),
        writeHeader(content({ sizeBytes: 10 })),
        padded('x'),
      ]),
    ],
    [
      'with a sparse map beyond the file',
      Buffer.concat([
        pax('GNU.sparse.size=9', 'GNU.sparse.map=0,50'),
        writeHeader(content({ sizeBytes: 10 })),
        padded('x'),
      ]),
    ],
  ])('%s is refused', async (_title, bytes) => {
    await expect(read(bytes)).rejects.toMatchObject({ class: 'InvalidArgument' });
  });

  it('with an entry of an unknown type is refused, and not passed over', async () => {
    await expect(read(typed('V'))).rejects.toMatchObject({ class: 'Unsupported' });
  });

  it('of any bytes is read or refused', async () => {
    const file = writeHeader(content({ sizeBytes: 20 }));
    const base = Buffer.concat([
      pax('path=a/b', 'mtime=12.5'),
      file,
      padded('x'.repeat(20)),
      file,
      padded('y'),
    ]);
    const changes = fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(changes, fc.boolean(), async (places, mend) => {
        const bytes = Buffer.from(base);
        for (const [place, value] of places) bytes[place] = value;
        const mended = mend
          ? Buffer.concat(
              [0, 1, 2, 3, 4, 5].map((n) => patched(bytes.subarray(n * 512, n * 512 + 512), () => undefined)),
            )
          : bytes;
        const ended = await read(mended).then(
          () => 'read',
          (error: unknown) => (error instanceof RoostError ? error.class : error),
        );
        expect(['read', 'InvalidArgument', 'Unsupported']).toContain(ended);
      }),
      { numRuns: 200 },
    );
  });
});

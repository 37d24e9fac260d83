import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ReadAt } from '../../../storage/foreign-formats/format-verdict.ts';
import { judgeVhdx } from '../../../storage/foreign-formats/vhdx-header.ts';
import { judgeVmdk } from '../../../storage/foreign-formats/vmdk-header.ts';

const readerOf =
  (bytes: Uint8Array): ReadAt =>
  (offset, length) =>
    Promise.resolve(offset < 0 ? new Uint8Array() : bytes.slice(offset, offset + length));

const vmdk = (descriptor: string, change: (view: DataView) => void = () => undefined): Buffer => {
  const file = Buffer.alloc(4096);
  file.write('KDMV', 0, 'latin1');
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  view.setUint32(4, 1, true);
  view.setBigUint64(12, 2048n, true);
  view.setBigUint64(28, 1n, true);
  view.setBigUint64(36, 2n, true);
  view.setBigUint64(56, 5n, true);
  change(view);
  file.write(descriptor, 512, 'latin1');
  return file;
};
const good = 'version=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicSparse"\nRW 2048 SPARSE "x.vmdk"\n';

const judged = (file: Buffer): Promise<unknown> => judgeVmdk(file.length, readerOf(file));

describe('a VMDK', () => {
  test('that is whole has the size of its header', async () => {
    expect(await judged(vmdk(good))).toEqual({ ok: true, virtualSizeBytes: 1_048_576n });
  });

  test.each([
    ['no descriptor', '', 'other-files'],
    ['a flat extent', good.replace('SPARSE', 'FLAT'), 'other-files'],
    ['two extents', `${good}RW 8 SPARSE "y.vmdk"\n`, 'other-files'],
    ['another type', good.replace('monolithicSparse', 'twoGbMaxExtentSparse'), 'other-files'],
    ['a parent by its id', good.replace('ffffffff', '00000001'), 'parent'],
    ['a parent by its name', `${good}parentFileNameHint="/etc/passwd"\n`, 'parent'],
  ])('with %s is refused', async (_what, descriptor, flaw) => {
    expect(await judged(vmdk(descriptor))).toEqual({ ok: false, flaw });
  });

  test.each([
    ['a capacity of none', (view: DataView) => view.setBigUint64(12, 0n, true), 'empty'],
    ['a version of tomorrow', (view: DataView) => view.setUint32(4, 4, true), 'unknown-version'],
    ['a descriptor nowhere', (view: DataView) => view.setBigUint64(28, 0n, true), 'damaged'],
    ['a descriptor beyond its end', (view: DataView) => view.setBigUint64(36, 100n, true), 'damaged'],
    ['a huge descriptor', (view: DataView) => view.setBigUint64(36, 2n ** 63n, true), 'damaged'],
    ['a footer that is none', (view: DataView) => view.setBigUint64(56, 2n ** 64n - 1n, true), 'damaged'],
  ])('with %s is refused', async (_what, change, flaw) => {
    expect(await judged(vmdk(good, change))).toEqual({ ok: false, flaw });
  });
});

test('whatever the bytes are, both judge and none is taken by chance', async () => {
  const heads = fc.constantFrom('', 'KDMV', 'vhdxfile', '# Disk DescriptorFile\n');
  await fc.assert(
    fc.asyncProperty(heads, fc.uint8Array({ maxLength: 4096 }), async (head, noise) => {
      const file = Buffer.concat([Buffer.from(head), noise]);
      for (const judge of [judgeVmdk, judgeVhdx])
        expect((await judge(file.length, readerOf(file))).ok).toBe(false);
    }),
  );
});

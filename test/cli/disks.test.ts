import { expect, it } from 'vitest';
import { printDiskMap } from '../../cli/print/disks.ts';
import type { DiskUse } from '../../protocol/disk.ts';
import type { ImageView } from '../../protocol/image.ts';

const MEBIBYTE = 1024 ** 2;
const id = (last: number): ImageView['id'] => `01890a5d-ac96-774b-bcce-00000000000${last}` as ImageView['id'];

const image = (last: number, name: string, change: Partial<ImageView> = {}): ImageView => ({
  id: id(last),
  name,
  version: 'v1',
  newest: true,
  aliases: [],
  kind: 'disk',
  state: 'ready',
  format: 'qcow2',
  sizeBytes: 500 * MEBIBYTE,
  virtualSizeBytes: 2048 * MEBIBYTE,
  usedBy: [],
  createdAt: 0,
  ...change,
});

const disk = (guest: string, name: string, change: Partial<DiskUse> = {}): DiskUse => ({
  guest,
  name,
  attached: true,
  readOnly: false,
  sizeBytes: 2048 * MEBIBYTE,
  serial: 'rs-1',
  files: [
    { path: `/p/${name}.qcow2`, format: 'qcow2', sizeBytes: 2048 * MEBIBYTE, allocatedBytes: MEBIBYTE },
  ],
  ...change,
});

it('the map of disks is a tree of what lies on what', () => {
  const images = [
    image(1, 'debian'),
    image(2, 'linux', { kind: 'kernel', usedBy: ['micro'] }),
    image(3, 'old'),
  ];
  const disks = [
    disk('db', 'disk0', { image: id(1) }),
    disk('web', 'copy', { image: id(1), attached: false, readOnly: true }),
    disk('web', 'lost', { files: [{ path: '/p/lost.qcow2', format: 'qcow2', sizeBytes: MEBIBYTE }] }),
  ];
  expect(printDiskMap(images, disks)).toEqual([
    'debian@v1   disk, 2GiB, 500MiB on the host',
    '├─ db/disk0   2GiB   1MiB',
    '└─ web/copy   2GiB   1MiB   read-only, detached',
    'linux@v1   kernel, 2GiB, 500MiB on the host',
    '└─ micro   boots it',
    'old@v1   disk, 2GiB, 500MiB on the host',
    'no image',
    '└─ web/lost   2GiB   missing',
  ]);
});

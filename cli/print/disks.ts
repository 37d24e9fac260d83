/** Disks for people: as a table, and as the tree of what lies on what. */
import type { DiskUse } from '../../protocol/disk.ts';
import type { ImageView } from '../../protocol/image.ts';
import { imageLabel } from '../../protocol/image-reference.ts';
import { formatSize } from '../units.ts';
import { renderTable, safe } from './table.ts';

const MISSING = 'missing';

/** What the disk's own file takes on the host. */
const allocatedText = ({ files }: DiskUse): string => {
  const bytes = files[0]?.allocatedBytes;
  return bytes === undefined ? MISSING : formatSize(bytes);
};

const noteText = (disk: DiskUse): string =>
  [disk.readOnly ? 'read-only' : '', disk.attached ? '' : 'detached'].filter(Boolean).join(', ');

const imageText = (disk: DiskUse, images: ReadonlyMap<string, ImageView>): string | undefined => {
  if (disk.image === undefined) return undefined;
  const image = images.get(disk.image);
  return image ? imageLabel(image) : disk.image;
};

export const printDisks = (disks: readonly DiskUse[], images: ReadonlyMap<string, ImageView>): string[] =>
  renderTable(
    ['guest', 'disk', 'size', 'on host', 'image', 'notes', 'file'],
    disks.map((disk) => [
      disk.guest,
      disk.name,
      formatSize(disk.sizeBytes),
      allocatedText(disk),
      imageText(disk, images),
      noteText(disk),
      disk.files[0]?.path,
    ]),
  );

/** Lines of a branch: each disk, and the kernels' users, which have no file of their own. */
const branch = (entries: readonly (readonly string[])[]): string[] => {
  const widths = [0, 1, 2].map((column) =>
    Math.max(0, ...entries.map((entry) => entry[column]?.length ?? 0)),
  );
  return entries.map((entry, index) => {
    const cells = entry.map((cell, column) => safe(cell).padEnd(widths[column] ?? 0));
    return `${index === entries.length - 1 ? '└─' : '├─'} ${cells.join('   ')}`.trimEnd();
  });
};

const diskEntry = (disk: DiskUse): readonly string[] => [
  `${disk.guest}/${disk.name}`,
  formatSize(disk.sizeBytes),
  allocatedText(disk),
  noteText(disk),
];

/** Every image with what lies on it, then the disks that lie on none. */
export const printDiskMap = (images: readonly ImageView[], disks: readonly DiskUse[]): string[] => {
  const known = new Set<string>(images.map(({ id }) => id));
  const trees = images.map((image) => {
    const on = disks.filter((disk) => disk.image === image.id);
    const use = image.kind === 'iso' ? 'in its drive' : 'boots it';
    const users = image.kind === 'disk' ? [] : image.usedBy.map((guest) => [guest, use]);
    const size = `${formatSize(image.virtualSizeBytes)}, ${formatSize(image.sizeBytes)} on the host`;
    return [
      `${safe(imageLabel(image))}   ${image.kind}, ${size}`,
      ...branch([...on.map(diskEntry), ...users]),
    ];
  });
  const own = disks.filter((disk) => disk.image === undefined || !known.has(disk.image));
  return [...trees, ...(own.length === 0 ? [] : [['no image', ...branch(own.map(diskEntry))]])].flat();
};

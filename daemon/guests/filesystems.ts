/** Directories of the host in a guest: which it has, shared and copied, and what it is told of them. */
import type { GuestSetup } from '../../drivers/driver.ts';
import type { GuestRecord, StoredFilesystem, StoredSpec } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';

type Told = NonNullable<GuestSetup['filesystems']>;

/** In an order in which none is mounted over another. Pure. */
export const filesystemsToMount = ({
  spec,
  machine,
}: Pick<GuestRecord, 'spec' | 'machine'>): { readonly filesystems?: Told } => {
  const shared = spec.filesystems.map(({ target, readOnly }, index) => ({
    name: machine.filesystems?.[index]?.name ?? '',
    target,
    readOnly,
  }));
  const copied = copiesIn(spec).map(({ disk, copyOf: { target, readOnly } }) => ({
    name: disk,
    target,
    readOnly,
    serial: machine.disks.find(({ name }) => name === disk)?.serial ?? '',
  }));
  const told = [...shared, ...copied];
  if (told.length === 0) return {};
  return { filesystems: told.toSorted((one, other) => depthOf(one.target) - depthOf(other.target)) };
};

const depthOf = (path: string): number => path.split('/').length;

/** Those that are disks, each with the name of its disk. Pure. */
export const copiesIn = ({
  disks,
}: Pick<StoredSpec, 'disks'>): readonly { readonly disk: string; readonly copyOf: StoredFilesystem }[] =>
  disks.flatMap(({ name, copyOf }) => (copyOf === undefined ? [] : { disk: name, copyOf }));

/** Those that somebody serves, or will. */
export const servedFilesystems = ({ record, status }: Guest): GuestRecord['spec']['filesystems'] =>
  record.spec.filesystems.filter(
    (_, index) =>
      status.process?.lostFilesystems?.[record.machine.filesystems?.[index]?.name ?? ''] === undefined,
  );

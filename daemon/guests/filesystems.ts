/** Directories of the host in a guest: what the guest is told of them, and which of them it has. */
import type { GuestSetup } from '../../drivers/driver.ts';
import type { GuestRecord } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';

type Told = NonNullable<GuestSetup['filesystems']>;

/** In an order in which none is mounted over another. Pure. */
export const filesystemsToMount = ({
  spec,
  machine,
}: Pick<GuestRecord, 'spec' | 'machine'>): { readonly filesystems?: Told } => {
  if (spec.filesystems.length === 0) return {};
  const told = spec.filesystems.map(({ target, readOnly }, index) => ({
    name: machine.filesystems?.[index]?.name ?? '',
    target,
    readOnly,
  }));
  return { filesystems: told.toSorted((one, other) => depthOf(one.target) - depthOf(other.target)) };
};

const depthOf = (path: string): number => path.split('/').length;

/** Those that somebody serves, or will. */
export const servedFilesystems = ({ record, status }: Guest): GuestRecord['spec']['filesystems'] =>
  record.spec.filesystems.filter(
    (_, index) =>
      status.process?.lostFilesystems?.[record.machine.filesystems?.[index]?.name ?? ''] === undefined,
  );

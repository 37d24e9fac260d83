/**
 * Which accelerator a guest gets, and why. KVM that opens but runs no guest is worse than none: `auto` takes it only
 * where the device opens for the guest's own uid and the processor has what KVM needs. The command line names just one,
 * without which QEMU does not run; of a process that others launched, QEMU is asked (`query-kvm`).
 */
import { constants } from 'node:fs';
import { access, open, stat } from 'node:fs/promises';
import { groupId } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestSpec } from '../../protocol/guest.ts';
import type { Credentials } from '../driver.ts';

const KVM_DEVICE = '/dev/kvm';
/** Flags of one processor are within the first bytes; the file has them again for each. */
const CPUINFO_BYTES = 16 * 1024;

export interface AccelFacts {
  /** Whether the guest's process could open /dev/kvm for reading and writing. */
  readonly device: 'opens' | 'missing' | 'denied';
  /** Of the device, for the text of errors; absent when it is missing. */
  readonly owner?: { readonly gid: number; readonly mode: number };
  /** Whether the processor shows vmx or svm; undefined where there is no such flag (not x86). */
  readonly virtualization?: boolean;
}

export interface AccelChoice {
  readonly accel: 'kvm' | 'tcg';
  readonly why: string;
}

/** Errors: Unsupported when KVM is insisted on and the guest's process could not open it. */
export const decideAccel = (setting: GuestSpec['qemu']['accel'], facts: AccelFacts): AccelChoice => {
  if (setting === 'tcg') return { accel: 'tcg', why: 'asked for' };
  const obstacle = obstacleTo(facts);
  if (setting === 'auto') {
    if (obstacle !== undefined) return { accel: 'tcg', why: obstacle };
    if (facts.virtualization === false) {
      return { accel: 'tcg', why: 'the processor shows neither vmx nor svm' };
    }
    return { accel: 'kvm', why: `${KVM_DEVICE} opens and the processor can` };
  }
  if (obstacle === undefined) return { accel: 'kvm', why: 'asked for' };
  throw new RoostError('Unsupported', `KVM was asked for, but ${obstacle}`, {
    data: { device: KVM_DEVICE, found: facts.device, ...(facts.owner ? { group: facts.owner.gid } : {}) },
    hint: hintFor(facts),
  });
};

const obstacleTo = ({ device, owner }: AccelFacts): string | undefined => {
  if (device === 'missing') return `there is no ${KVM_DEVICE}`;
  if (device === 'opens') return undefined;
  const mode = (owner?.mode ?? 0).toString(8).padStart(4, '0');
  return `${KVM_DEVICE} (mode ${mode}, group ${owner?.gid ?? '?'}) does not open for the guest's user`;
};

const hintFor = ({ device, owner }: AccelFacts): string => {
  if (device === 'missing') return 'Load the module kvm_intel or kvm_amd, or use accel auto.';
  const gid = owner?.gid ?? 0;
  const group = gid === 0 ? 'a group kvm: `chgrp kvm /dev/kvm && chmod 0660 /dev/kvm`' : `its group (${gid})`;
  return `Guests are members of the group kvm; give the device to ${group}, or use accel auto.`;
};

/** Looks at the host for a process of these credentials, or for one of the daemon's own user. */
export const gatherAccelFacts = async (credentials: Credentials | undefined): Promise<AccelFacts> => {
  const [device, virtualization] = await Promise.all([lookAtDevice(credentials), hasVirtualization()]);
  return virtualization === undefined ? device : { ...device, virtualization };
};

const lookAtDevice = async (credentials: Credentials | undefined): Promise<AccelFacts> => {
  try {
    const { mode, uid, gid } = await stat(KVM_DEVICE);
    const owner = { gid, mode: mode & 0o7777 };
    const opens = credentials ? mayOpen({ mode, uid, gid }, credentials) : await opensForMe();
    return { device: opens ? 'opens' : 'denied', owner };
  } catch {
    return { device: 'missing' };
  }
};

/** The kernel's rule for files without an access control list. */
export const mayOpen = (
  file: { readonly mode: number; readonly uid: number; readonly gid: number },
  { uid, gid, groups }: Credentials,
): boolean => {
  if (uid === 0) return true;
  if (uid === file.uid) return (file.mode & 0o600) === 0o600;
  if (gid === file.gid || groups.includes(file.gid)) return (file.mode & 0o060) === 0o060;
  return (file.mode & 0o006) === 0o006;
};

const opensForMe = (): Promise<boolean> =>
  access(KVM_DEVICE, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );

let knownVirtualization: Promise<boolean | undefined> | undefined;

const hasVirtualization = (): Promise<boolean | undefined> => {
  if (process.arch !== 'x64') return Promise.resolve(undefined);
  knownVirtualization ??= readFlags().then((flags) => flags.includes('vmx') || flags.includes('svm'));
  return knownVirtualization;
};

const readFlags = async (): Promise<readonly string[]> => {
  const file = await open('/proc/cpuinfo', 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(CPUINFO_BYTES), 0, CPUINFO_BYTES, 0);
    const text = buffer.toString('latin1', 0, bytesRead);
    return /^flags\s*:(.*)$/m.exec(text)?.[1]?.split(' ') ?? [];
  } finally {
    await file.close();
  }
};

/** User and group of nobody in particular, for questions about guests at large. */
const NOBODY = 65_534;

/** Identity of an ordinary guest under a daemon with privileges. */
export const ordinaryGuest = (): Credentials | undefined => {
  if (process.getuid?.() !== 0) return undefined;
  const kvm = groupId('kvm');
  return { uid: NOBODY, gid: NOBODY, groups: kvm === undefined ? [] : [kvm] };
};

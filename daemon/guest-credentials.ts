/** Who guests run as under a daemon with privileges: a uid each, and the groups that they need. */
import { readFileSync } from 'node:fs';
import type { Credentials } from '../drivers/driver.ts';
import { groupId } from '../native/index.ts';
import { type IdRange, idRange } from '../protocol/container.ts';
import type { InstanceId } from '../protocol/types.ts';
import type { Config } from './config.ts';
import type { House } from './guests/house.ts';
import { idRangeFor } from './guests/id-range.ts';
import { guestUid, guestUidBase, imagesGidOf } from './instance.ts';

/** Gid of those who may read images; undefined without privileges. */
export const imagesGroup = (config: Config, instance: InstanceId, privileged: boolean): number | undefined =>
  privileged
    ? (groupId('roost-images') ?? imagesGidOf(guestUidBase(config.guests.firstUid, instance)))
    : undefined;

export const credentialsFor = (
  config: Config,
  instance: InstanceId,
  imagesGid: number | undefined,
): House['credentialsOf'] => {
  if (imagesGid === undefined) return () => undefined;
  const base = guestUidBase(config.guests.firstUid, instance);
  const kvm = groupId('kvm');
  return (number): Credentials => {
    const uid = guestUid(base, number);
    return { uid, gid: uid, groups: [imagesGid, ...(kvm === undefined ? [] : [kvm])] };
  };
};

/** What the host has given to users of its own, as shadow's subordinate ids have it: `name:first:count` in each line. */
export const subordinateIds = (text: string): readonly IdRange[] =>
  text.split('\n').flatMap((line) => {
    const [, first = '', count = ''] = line.split(':');
    const range = idRange.safeParse({ first: Number.parseInt(first, 10), count: Number.parseInt(count, 10) });
    return range.success ? [range.data] : [];
  });

/** Nothing where there is no such file. */
const readIfThere = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

export const idRangesFor = (config: Config, instance: InstanceId): House['idRangeFor'] => {
  const { firstId } = config.containers;
  const others = ['/etc/subuid', '/etc/subgid'].flatMap((path) => subordinateIds(readIfThere(path)));
  return (number, taken) => idRangeFor({ instance, number, firstId, taken: [...others, ...taken] });
};

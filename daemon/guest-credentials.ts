/** Who guests run as under a daemon with privileges: a uid each, and the groups that they need. */
import type { Credentials } from '../drivers/driver.ts';
import { groupId } from '../native/index.ts';
import type { InstanceId } from '../protocol/types.ts';
import type { Config } from './config.ts';
import type { House } from './guests/house.ts';
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

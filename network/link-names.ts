/**
 * Names of links on the host, computable from the inventory alone. A link name has 15 bytes (IFNAMSIZ less its end), and
 * begins with two letters and the instance's id, so that rules and inspection know every link of an instance by prefix.
 */
import type { InstanceId } from '../protocol/types.ts';

/** What every bridge of the instance begins with. */
export const bridgePrefix = (instance: InstanceId): string => `rb${instance}`;

/** What every tap of the instance begins with. */
export const tapPrefix = (instance: InstanceId): string => `rt${instance}`;

/** What the host's end of every veth pair of the instance begins with. */
export const vethPrefix = (instance: InstanceId): string => `rv${instance}`;

/** What the guest's end of every veth pair of the instance begins with, for as long as nobody has taken it. */
export const vethPeerPrefix = (instance: InstanceId): string => `rp${instance}`;

/** NICs that a guest can have: the index is one character of the name. */
export const MAX_NICS = 36;

/** Network and guest numbers below this give names that fit. */
export const MAX_LINK_NUMBER = 36 ** 7;

const base36 = (value: number, below: number): string => {
  if (!Number.isInteger(value) || value < 0 || value >= below)
    throw new RangeError(`${value} is not an integer from 0 to ${below - 1}`);
  return value.toString(36);
};

export const bridgeName = (instance: InstanceId, networkNumber: number): string =>
  `${bridgePrefix(instance)}${base36(networkNumber, MAX_LINK_NUMBER)}`;

/** The last character is the NIC's index, what stands before it the guest's number. */
const nicWord = (guestNumber: number, index: number): string =>
  `${base36(guestNumber, MAX_LINK_NUMBER)}${base36(index, MAX_NICS)}`;

export const tapName = (instance: InstanceId, guestNumber: number, index: number): string =>
  `${tapPrefix(instance)}${nicWord(guestNumber, index)}`;

export const vethName = (instance: InstanceId, guestNumber: number, index: number): string =>
  `${vethPrefix(instance)}${nicWord(guestNumber, index)}`;

export const vethPeerName = (instance: InstanceId, guestNumber: number, index: number): string =>
  `${vethPeerPrefix(instance)}${nicWord(guestNumber, index)}`;

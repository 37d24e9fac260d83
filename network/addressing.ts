/**
 * IPv4 arithmetic of networks and the MAC addresses we give out. Pure: text in, text out; addresses are handled as
 * unsigned 32-bit numbers inside.
 *
 * Rules it keeps: the gateway is the first address of a subnet, guests have the rest without its two ends (RFC 1122
 * section 3.2.1.3), and a subnet is written canonically, with no bit set after its prefix.
 */
import { RoostError } from '../protocol/errors.ts';
import type { InstanceId, MacAddress } from '../protocol/types.ts';

/** Widest and narrowest subnet of a network, as prefix lengths. */
const WIDEST_PREFIX = 16;
const NARROWEST_PREFIX = 29;

/** Where subnets are chosen from: /24s of RFC 1918 space that common software leaves alone, in this order. */
const CHOICES: readonly { readonly first: string; readonly count: number }[] = [
  { first: '10.91.0.0', count: 5 * 256 },
  { first: '172.28.0.0', count: 4 * 256 },
  { first: '192.168.128.0', count: 128 },
];

interface Range {
  readonly first: number;
  readonly last: number;
}

/** Number of an address; undefined unless it is four decimal octets without leading zeros. */
function parseAddress(text: string): number | undefined {
  const octets = text.split('.');
  if (octets.length !== 4) return undefined;
  let value = 0;
  for (const octet of octets) {
    if (!/^(0|[1-9]\d{0,2})$/.test(octet) || Number(octet) > 255) return undefined;
    value = value * 256 + Number(octet);
  }
  return value;
}

function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
}

/** Range of `10.0.0.0/8` or of a single address; host bits may be set, as in an address with its prefix. */
function parseRange(text: string): Range | undefined {
  const [head = '', prefixText = '32', ...rest] = text.split('/');
  const address = parseAddress(head);
  if (address === undefined || rest.length > 0 || !/^\d{1,2}$/.test(prefixText)) return undefined;
  const prefix = Number(prefixText);
  if (prefix > 32) return undefined;
  const size = 2 ** (32 - prefix);
  const first = address - (address % size);
  return { first, last: first + size - 1 };
}

const overlaps = (one: Range, other: Range): boolean => one.first <= other.last && other.first <= one.last;

/** Space in which no network can be: this network, loopback, link-local, multicast and beyond (RFC 6890). */
const IMPOSSIBLE: readonly string[] = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3'];

function parseSubnet(subnet: string): Range {
  const refuse = (why: string): never => {
    throw new RoostError('InvalidArgument', `Subnet ${subnet} ${why}`, {
      data: { subnet },
      hint: 'Give a subnet from /16 to /29, as 10.91.7.0/24.',
    });
  };
  const range = parseRange(subnet);
  if (range === undefined || !subnet.includes('/')) return refuse('is not an IPv4 subnet');
  const prefix = Number(subnet.split('/')[1]);
  if (prefix < WIDEST_PREFIX || prefix > NARROWEST_PREFIX) return refuse('is too large or too small');
  const canonical = `${formatAddress(range.first)}/${prefix}`;
  if (canonical !== subnet) return refuse(`should be written ${canonical}`);
  if (overlapping(subnet, IMPOSSIBLE) !== undefined) return refuse('is not for hosts');
  return range;
}

/**
 * The host's own address in a subnet: its first.
 * Errors: InvalidArgument for a subnet that is malformed, too large or too small.
 */
export function gatewayOf(subnet: string): string {
  return formatAddress(parseSubnet(subnet).first + 1);
}

/** Netmask of a subnet, dotted. Errors: as gatewayOf. */
export function netmaskOf(subnet: string): string {
  const { first, last } = parseSubnet(subnet);
  return formatAddress(2 ** 32 - (last - first + 1));
}

/** Address of the subnet itself: its lowest. Errors: as gatewayOf. */
export function networkAddressOf(subnet: string): string {
  return formatAddress(parseSubnet(subnet).first);
}

/** Whether a guest may have this address: in the subnet, and neither its ends nor the gateway. */
export function isGuestAddress(subnet: string, address: string): boolean {
  const { first, last } = parseSubnet(subnet);
  const value = parseAddress(address);
  return value !== undefined && value > first + 1 && value < last;
}

/** The lowest address that nobody has; undefined when all are taken. */
export function freeAddress(subnet: string, used: readonly string[]): string | undefined {
  const { first, last } = parseSubnet(subnet);
  const taken = new Set(used.map(parseAddress));
  for (let value = first + 2; value < last; value += 1) {
    if (!taken.has(value)) return formatAddress(value);
  }
  return undefined;
}

/** The first of `taken` (subnets, or single addresses) that the subnet overlaps; what cannot be read is passed over. */
export function overlapping(subnet: string, taken: readonly string[]): string | undefined {
  const range = parseRange(subnet);
  if (range === undefined) return undefined;
  return taken.find((other) => {
    const otherRange = parseRange(other);
    return otherRange !== undefined && overlaps(range, otherRange);
  });
}

/**
 * A /24 that overlaps none of those taken; undefined when there is none.
 *
 * @param seed where in the first block to begin; the walk covers all of them whatever it is
 */
export function chooseSubnet(taken: readonly string[], seed = 0): string | undefined {
  const ranges = taken.flatMap((each) => parseRange(each) ?? []);
  for (const { first, count } of CHOICES) {
    const base = parseAddress(first) ?? 0;
    for (let step = 0; step < count; step += 1) {
      const start = base + ((step + seed) % count) * 256;
      const candidate = { first: start, last: start + 255 };
      if (!ranges.some((range) => overlaps(range, candidate))) return `${formatAddress(start)}/24`;
    }
  }
  return undefined;
}

/** FNV-1a, 32 bits (draft-eastlake-fnv): spreads instances, keeps no secret. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}

/** NICs of one guest that get neighbouring MAC addresses; one beyond may meet the next guest's. */
const NICS_OF_A_GUEST = 8;

/**
 * A MAC address for a NIC, in QEMU's block 52:54:00. No two of an instance are the same for the first 8 NICs of 2^21
 * guests; instances begin at places far apart. `isTaken` passes over addresses that somebody has all the same.
 */
export function generatedMac(
  instance: InstanceId,
  guestNumber: number,
  index: number,
  isTaken: (mac: MacAddress) => boolean = () => false,
): MacAddress {
  const start = hash(instance) + guestNumber * NICS_OF_A_GUEST + index;
  for (let step = 0; step < 2 ** 24; step += 1) {
    const mac = qemuMac(start + step);
    if (!isTaken(mac)) return mac;
  }
  throw new RoostError('ResourceExhausted', 'Every MAC address of the block 52:54:00 is taken', {
    hint: 'Give the NIC a MAC address of its own.',
  });
}

/** The MAC address of a network's bridge: fixed, or it would change with every port (bridge(8)). */
export function bridgeMac(instance: InstanceId, networkNumber: number): MacAddress {
  const tail = hash(`${instance} ${networkNumber}`).toString(16).padStart(8, '0');
  return ['02', '52', ...(tail.match(/../g) ?? [])].join(':') as MacAddress;
}

function qemuMac(number: number): MacAddress {
  const tail = (number % 2 ** 24).toString(16).padStart(6, '0');
  return ['52', '54', '00', ...(tail.match(/../g) ?? [])].join(':') as MacAddress;
}

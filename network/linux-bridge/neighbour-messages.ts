/**
 * Messages of rtnetlink(7) on neighbours, from bytes: pure but for the byte order, which is the machine's own
 * (linux/netlink.h, linux/neighbour.h). IPv4 only; all else is passed over.
 */

/** NUD states of linux/neighbour.h that matter here. */
const STATES: ReadonlyMap<number, NeighbourState> = new Map([
  [0x01, 'incomplete'],
  [0x02, 'reachable'],
  [0x04, 'stale'],
  [0x08, 'delay'],
  [0x10, 'probe'],
  [0x20, 'failed'],
  [0x40, 'noarp'],
  [0x80, 'permanent'],
]);

export type NeighbourState =
  | 'incomplete'
  | 'reachable'
  | 'stale'
  | 'delay'
  | 'probe'
  | 'failed'
  | 'noarp'
  | 'permanent'
  | 'gone';

export interface NeighbourChange {
  readonly linkIndex: number;
  readonly address: string;
  /** Absent while nobody has answered. */
  readonly mac?: string;
  /** `gone`: the entry was removed. */
  readonly state: NeighbourState;
}

const NLMSG_HEADER_BYTES = 16;
/** struct ndmsg: family, index of the link, state, flags and type. */
const NDMSG_BYTES = 12;
const ATTRIBUTE_HEADER_BYTES = 4;
const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const AF_INET = 2;
const NDA_DST = 1;
const NDA_LLADDR = 2;

const aligned = (length: number): number => (length + 3) & ~3;

/** Attributes by type; one that claims more than there is ends the list. */
const attributesOf = (bytes: DataView, from: number, end: number): ReadonlyMap<number, Uint8Array> => {
  const attributes = new Map<number, Uint8Array>();
  for (let at = from; at + ATTRIBUTE_HEADER_BYTES <= end; ) {
    const length = bytes.getUint16(at, LITTLE);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > end) break;
    const value = new Uint8Array(
      bytes.buffer,
      bytes.byteOffset + at + ATTRIBUTE_HEADER_BYTES,
      length - ATTRIBUTE_HEADER_BYTES,
    );
    attributes.set(bytes.getUint16(at + 2, LITTLE), value);
    at += aligned(length);
  }
  return attributes;
};

/** The machine's byte order: the kernel writes its own structures. */
const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

const changeOf = (bytes: DataView, at: number, end: number): NeighbourChange | undefined => {
  const body = at + NLMSG_HEADER_BYTES;
  const type = bytes.getUint16(at + 4, LITTLE);
  if ((type !== RTM_NEWNEIGH && type !== RTM_DELNEIGH) || body + NDMSG_BYTES > end) return undefined;
  if (bytes.getUint8(body) !== AF_INET) return undefined;
  const attributes = attributesOf(bytes, body + NDMSG_BYTES, end);
  const address = attributes.get(NDA_DST);
  const mac = attributes.get(NDA_LLADDR);
  const state = type === RTM_DELNEIGH ? 'gone' : STATES.get(bytes.getUint16(body + 8, LITTLE));
  if (address?.length !== 4 || state === undefined) return undefined;
  return {
    linkIndex: bytes.getInt32(body + 4, LITTLE),
    address: [...address].join('.'),
    state,
    ...(mac?.length === 6
      ? { mac: [...mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':') }
      : {}),
  };
};

/** The changes that a read of a socket of `openNeighbourEvents` gave, in their order. */
export function parseNeighbourMessages(read: Uint8Array): readonly NeighbourChange[] {
  const bytes = new DataView(read.buffer, read.byteOffset, read.byteLength);
  const changes: NeighbourChange[] = [];
  for (let at = 0; at + NLMSG_HEADER_BYTES <= bytes.byteLength; ) {
    const length = bytes.getUint32(at, LITTLE);
    if (length < NLMSG_HEADER_BYTES || at + length > bytes.byteLength) break;
    const change = changeOf(bytes, at, at + length);
    if (change) changes.push(change);
    at += aligned(length);
  }
  return changes;
}

/** Ethernet frames by hand: enough of ARP, IPv4, UDP, DHCP and DNS to speak for a guest. */

export interface Ethernet {
  readonly to: string;
  readonly from: string;
  readonly type: number;
  readonly payload: Buffer;
}

export const BROADCAST = 'ff:ff:ff:ff:ff:ff';
export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, ipv6: 0x86dd } as const;

const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');
const macText = (bytes: Buffer): string => bytes.toString('hex').replaceAll(/..(?!$)/g, '$&:');
const ipBytes = (address: string): Buffer => Buffer.from(address.split('.').map(Number));
const ipText = (bytes: Buffer): string => [...bytes].join('.');
const u16 = (...values: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(values.length * 2);
  values.forEach((value, index) => bytes.writeUInt16BE(value, index * 2));
  return bytes;
};

export const ethernet = ({ to, from, type, payload }: Ethernet): Buffer =>
  Buffer.concat([macBytes(to), macBytes(from), u16(type), payload]);

export const parseEthernet = (frame: Buffer): Ethernet => ({
  to: macText(frame.subarray(0, 6)),
  from: macText(frame.subarray(6, 12)),
  type: frame.readUInt16BE(12),
  payload: frame.subarray(14),
});

export interface Arp {
  readonly operation: 'request' | 'reply';
  readonly senderMac: string;
  readonly senderIp: string;
  readonly targetMac: string;
  readonly targetIp: string;
}

export const arp = (packet: Arp): Buffer =>
  Buffer.concat([
    u16(1, ETHERTYPE.ipv4, 0x0604, packet.operation === 'request' ? 1 : 2),
    macBytes(packet.senderMac),
    ipBytes(packet.senderIp),
    macBytes(packet.targetMac),
    ipBytes(packet.targetIp),
  ]);

export const parseArp = (payload: Buffer): Arp => ({
  operation: payload.readUInt16BE(6) === 1 ? 'request' : 'reply',
  senderMac: macText(payload.subarray(8, 14)),
  senderIp: ipText(payload.subarray(14, 18)),
  targetMac: macText(payload.subarray(18, 24)),
  targetIp: ipText(payload.subarray(24, 28)),
});

export interface Udp {
  readonly from: string;
  readonly to: string;
  readonly fromPort: number;
  readonly toPort: number;
  readonly data: Buffer;
}

/** UDP in IPv4; a UDP checksum of 0 means none (RFC 768). */
export function udp({ from, to, fromPort, toPort, data }: Udp): Buffer {
  const length = 28 + data.length;
  const header = Buffer.concat([u16(0x4500, length, 0, 0, 0x4011, 0), ipBytes(from), ipBytes(to)]);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += header.readUInt16BE(at);
  sum = (sum & 0xffff) + (sum >>> 16);
  header.writeUInt16BE(~(sum + (sum >>> 16)) & 0xffff, 10);
  return Buffer.concat([header, u16(fromPort, toPort, 8 + data.length, 0), data]);
}

/** What is inside an IPv4 packet, if it is UDP. */
export function parseUdp(packet: Buffer): Udp | undefined {
  if (packet[9] !== 17) return undefined;
  const headerLength = ((packet[0] ?? 0) & 15) * 4;
  const segment = packet.subarray(headerLength, packet.readUInt16BE(2));
  return {
    from: ipText(packet.subarray(12, 16)),
    to: ipText(packet.subarray(16, 20)),
    fromPort: segment.readUInt16BE(0),
    toPort: segment.readUInt16BE(2),
    data: segment.subarray(8),
  };
}

/** Sum of 16-bit words as the Internet's protocols make it (RFC 1071); 0xffff over what holds its own checksum. */
function onesSum(bytes: Buffer): number {
  const even = bytes.length % 2 === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(1)]);
  let sum = 0;
  for (let at = 0; at < even.length; at += 2) sum += even.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** Whether a UDP or TCP packet in IPv4 has a checksum, and the right one; undefined for what is neither. */
export function checksumHolds(packet: Buffer): boolean | undefined {
  const protocol = packet[9] ?? 0;
  if (protocol !== 6 && protocol !== 17) return undefined;
  const segment = packet.subarray(((packet[0] ?? 0) & 15) * 4, packet.readUInt16BE(2));
  if (protocol === 17 && segment.readUInt16BE(6) === 0) return false;
  return onesSum(Buffer.concat([packet.subarray(12, 20), u16(protocol, segment.length), segment])) === 0xffff;
}

/** Options of DHCP (RFC 2132) that the tests look at. */
export const DHCP_OPTION = { mask: 1, router: 3, dns: 6, domain: 15, requested: 50, type: 53, server: 54 };
const DHCP_COOKIE = Buffer.from('63825363', 'hex');

/** A client's message (RFC 2131) that asks for a broadcast answer. */
export function dhcpRequest(mac: string, options: readonly (readonly [number, Buffer])[]): Buffer {
  const fixed = Buffer.alloc(236);
  fixed.set([1, 1, 6, 0, 0x52, 0x4f, 0x53, 0x54]);
  fixed.writeUInt16BE(0x8000, 10);
  fixed.set(macBytes(mac), 28);
  const encoded = options.map(([code, value]) => Buffer.concat([Buffer.from([code, value.length]), value]));
  return Buffer.concat([fixed, DHCP_COOKIE, ...encoded, Buffer.from([255])]);
}

export interface DhcpReply {
  readonly address: string;
  readonly options: ReadonlyMap<number, Buffer>;
}

export function parseDhcp(data: Buffer): DhcpReply {
  const options = new Map<number, Buffer>();
  for (let at = 240; at < data.length && data[at] !== 255; ) {
    const code = data[at] ?? 0;
    const length = code === 0 ? -1 : (data[at + 1] ?? 0);
    if (code !== 0) options.set(code, data.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return { address: ipText(data.subarray(16, 20)), options };
}

export const dhcpAddress = (value: Buffer | undefined): string | undefined =>
  value === undefined ? undefined : ipText(value);
export const dhcpValue = (address: string): Buffer => ipBytes(address);

/** A question for the A record of a name (RFC 1035 section 4). */
export function dnsQuestion(name: string): Buffer {
  const labels = name
    .split('.')
    .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]));
  return Buffer.concat([u16(0x5254, 0x0100, 1, 0, 0, 0), ...labels, Buffer.from([0]), u16(1, 1)]);
}

/** Response code (0 is success, 3 no such name), and the address of an answer with one. */
export const parseDnsAnswer = (data: Buffer): { code: number; address?: string } => ({
  code: data.readUInt16BE(2) & 15,
  ...(data.readUInt16BE(6) === 1 ? { address: ipText(data.subarray(-4)) } : {}),
});

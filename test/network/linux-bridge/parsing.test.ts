import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseLeases } from '../../../network/linux-bridge/leases.ts';
import { parseNeighbourMessages } from '../../../network/linux-bridge/neighbour-messages.ts';
import { resolvedCommands } from '../../../network/linux-bridge/resolved.ts';
import type { Site } from '../../../network/linux-bridge/site.ts';

/** RTM_NEWNEIGH for 10.9.0.5 on link 7, as a little-endian kernel writes it. */
const message = (state: number, type = 28): Buffer => {
  const bytes = Buffer.alloc(48);
  bytes.writeUInt32LE(48, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt8(2, 16);
  bytes.writeInt32LE(7, 20);
  bytes.writeUInt16LE(state, 24);
  bytes.writeUInt16LE(8, 28);
  bytes.writeUInt16LE(1, 30);
  bytes.set([10, 9, 0, 5], 32);
  bytes.writeUInt16LE(10, 36);
  bytes.writeUInt16LE(2, 38);
  bytes.set([0x52, 0x54, 0, 0, 0, 5], 40);
  return bytes;
};
const change = { linkIndex: 7, address: '10.9.0.5', mac: '52:54:00:00:00:05' };

describe('messages on neighbours', () => {
  it('tell link, address, MAC address and state, one after the other', () => {
    expect(parseNeighbourMessages(Buffer.concat([message(0x10), message(0x02)]))).toEqual([
      { ...change, state: 'probe' },
      { ...change, state: 'reachable' },
    ]);
    expect(parseNeighbourMessages(message(0x20, 29))).toEqual([{ ...change, state: 'gone' }]);
  });

  it('of any other kind, or cut, are passed over', () => {
    expect(parseNeighbourMessages(message(0x02, 16))).toEqual([]);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 47 }), (length) => {
        expect(parseNeighbourMessages(message(0x02).subarray(0, length))).toEqual([]);
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(Array.isArray(parseNeighbourMessages(bytes))).toBe(true);
      }),
    );
  });
});

describe('leases', () => {
  it('are lines of expiry, MAC address and address; all else is passed over', () => {
    const text =
      '1795650000 52:54:00:00:00:05 10.9.0.5 web 01:52:54:00:00:00:05\nduid 00:01\n17956 52:54:00:00\n';
    expect(parseLeases(text)).toEqual([
      { mac: '52:54:00:00:00:05', address: '10.9.0.5', expiresAt: 1_795_650_000_000 },
    ]);
  });
});

describe('systemd-resolved', () => {
  it('is told of the server and the domain of a network, and of nothing else', () => {
    const site = { bridge: 'rbabcde1', gateway: '10.91.1.1', networkName: 'default' } as Site;
    expect(resolvedCommands(site).map((command) => command.join(' '))).toEqual([
      'dns rbabcde1 10.91.1.1',
      'domain rbabcde1 ~default',
      'default-route rbabcde1 no',
      'dnssec rbabcde1 no',
      'llmnr rbabcde1 no',
      'mdns rbabcde1 no',
    ]);
  });
});

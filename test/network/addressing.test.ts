import fc from 'fast-check';
import { describe, expect, expectTypeOf, it } from 'vitest';
import * as addressing from '../../network/addressing.ts';
import type { Addressing } from '../../network/backend.ts';
import { type InstanceId, macAddress } from '../../protocol/types.ts';

const {
  bridgeMac,
  chooseSubnet,
  freeAddress,
  gatewayOf,
  generatedMac,
  isGuestAddress,
  netmaskOf,
  networkAddressOf,
  overlapping,
} = addressing;

/** An address from a string of 32 bits. */
const address = (text: string): string =>
  [0, 8, 16, 24].map((at) => Number.parseInt(text.slice(at, at + 8), 2)).join('.');

const bitString = (length: number) =>
  fc.array(fc.constantFrom('0', '1'), { minLength: length, maxLength: length }).map((all) => all.join(''));

/** A valid subnet below 10.0.0.0/8, with its prefix in bits. */
const subnets = fc.integer({ min: 16, max: 29 }).chain((length) =>
  bitString(length - 8).map((tail) => {
    const prefix = `00001010${tail}`;
    return { length, prefix, subnet: `${address(prefix.padEnd(32, '0'))}/${length}` };
  }),
);

describe('a subnet', () => {
  it('has its gateway first, and its mask', () => {
    fc.assert(
      fc.property(subnets, ({ subnet, prefix, length }) => {
        expect(gatewayOf(subnet)).toBe(address(`${prefix.padEnd(31, '0')}1`));
        expect(networkAddressOf(subnet)).toBe(address(prefix.padEnd(32, '0')));
        expect(netmaskOf(subnet)).toBe(address('1'.repeat(length).padEnd(32, '0')));
      }),
    );
  });

  it.each([
    ['10.91.7.0', 'not an IPv4 subnet'],
    ['10.91.7/24', 'not an IPv4 subnet'],
    ['10.91.07.0/24', 'not an IPv4 subnet'],
    ['10.91.256.0/24', 'not an IPv4 subnet'],
    ['10.91.7.0/24/24', 'not an IPv4 subnet'],
    ['10.91.7.0/', 'not an IPv4 subnet'],
    ['10.91.7.0/33', 'not an IPv4 subnet'],
    ['10.91.7.0/024', 'not an IPv4 subnet'],
    [' 10.91.7.0/24', 'not an IPv4 subnet'],
    ['fd00::/64', 'not an IPv4 subnet'],
    ['10.0.0.0/15', 'too large or too small'],
    ['10.91.7.0/30', 'too large or too small'],
    ['10.91.7.1/24', 'should be written 10.91.7.0/24'],
    ['127.0.1.0/24', 'not for hosts'],
    ['0.1.0.0/16', 'not for hosts'],
    ['169.254.3.0/24', 'not for hosts'],
    ['239.1.1.0/24', 'not for hosts'],
  ])('is not %j: %s', (subnet, why) => {
    expect(() => gatewayOf(subnet)).toThrow(
      expect.objectContaining({ class: 'InvalidArgument', message: expect.stringContaining(why) as string }),
    );
  });

  it('has every address but its ends and the gateway for guests', () => {
    fc.assert(
      fc.property(subnets, bitString(32), ({ subnet, prefix }, random) => {
        for (const candidate of [random, prefix + random.slice(prefix.length)]) {
          const host = candidate.slice(prefix.length);
          const ours =
            candidate.startsWith(prefix) && host.includes('0') && /1/.test(host) && !/^0*1$/.test(host);
          expect(isGuestAddress(subnet, address(candidate))).toBe(ours);
        }
      }),
    );
  });

  it('has no guest at its ends, at the gateway or at what is no address', () => {
    for (const wrong of ['10.91.7.0', '10.91.7.1', '10.91.7.255', '10.91.8.2', '10.91.7', 'x', '10.91.7.02'])
      expect(isGuestAddress('10.91.7.0/24', wrong)).toBe(false);
    expect(isGuestAddress('10.91.7.0/24', '10.91.7.254')).toBe(true);
  });
});

describe('freeAddress', () => {
  it('gives every guest address once, the lowest first, then none', () => {
    fc.assert(
      fc.property(fc.integer({ min: 26, max: 29 }), (length) => {
        const subnet = `192.168.200.0/${length}`;
        const used: string[] = [];
        for (let next = freeAddress(subnet, used); next; next = freeAddress(subnet, used)) used.push(next);
        const count = 2 ** (32 - length) - 3;
        expect(used).toEqual(Array.from({ length: count }, (_, index) => `192.168.200.${index + 2}`));
      }),
    );
  });

  it('gives an address that was let go again', () => {
    expect(freeAddress('10.91.7.0/24', ['10.91.7.2', '10.91.7.4', '10.91.8.3'])).toBe('10.91.7.3');
  });
});

describe('overlapping', () => {
  it('is prefix of prefix, either way round', () => {
    const any = fc.integer({ min: 0, max: 32 }).chain((length) => bitString(length));
    const text = (prefix: string): string => `${address(prefix.padEnd(32, '0'))}/${prefix.length}`;
    fc.assert(
      fc.property(any, any, fc.integer({ min: 0, max: 32 }), (one, other, kept) => {
        const related = one.slice(0, kept) + other.slice(kept);
        for (const second of [other, related]) {
          const expected = one.startsWith(second) || second.startsWith(one) ? text(second) : undefined;
          expect(overlapping(text(one), [text(second)])).toBe(expected);
        }
      }),
    );
  });

  it('knows single addresses and addresses with a prefix, and passes over what it cannot read', () => {
    expect(overlapping('10.91.7.0/24', ['fe80::1/64', 'blackhole', '10.91.7.77'])).toBe('10.91.7.77');
    expect(overlapping('10.91.7.0/24', ['10.91.6.9/23'])).toBe('10.91.6.9/23');
    expect(overlapping('10.91.7.0/24', ['10.91.6.9', '10.91.8.0/24'])).toBeUndefined();
  });
});

describe('chooseSubnet', () => {
  it('begins at 10.91.0.0/24, or where the seed says', () => {
    expect(chooseSubnet([])).toBe('10.91.0.0/24');
    expect(chooseSubnet([], 7)).toBe('10.91.7.0/24');
    expect(chooseSubnet(['10.91.0.1/24', '10.91.1.200'])).toBe('10.91.2.0/24');
  });

  it('goes elsewhere when all of 10.0.0.0/8 is routed, and gives up when everything is', () => {
    expect(chooseSubnet(['10.0.0.0/8'])).toBe('172.28.0.0/24');
    expect(chooseSubnet(['10.0.0.0/8', '172.16.0.0/12'])).toBe('192.168.128.0/24');
    expect(chooseSubnet(['0.0.0.0/0'])).toBeUndefined();
  });

  it('gives a subnet that is valid and overlaps none of those taken, from any seed', () => {
    fc.assert(
      fc.property(fc.array(subnets, { maxLength: 40 }), fc.nat(), (taken, seed) => {
        const used = taken.map(({ subnet }) => subnet);
        const chosen = chooseSubnet(used, seed) ?? '';
        expect(() => gatewayOf(chosen)).not.toThrow();
        expect(overlapping(chosen, used)).toBeUndefined();
      }),
    );
  });
});

const instances = fc.stringMatching(/^[a-z0-9]{5}$/).map((id) => id as InstanceId);

describe('generatedMac', () => {
  it('is a MAC address of the block 52:54:00, the same each time', () => {
    fc.assert(
      fc.property(instances, fc.nat({ max: 2 ** 31 }), fc.nat({ max: 35 }), (instance, guest, index) => {
        const mac = generatedMac(instance, guest, index);
        expect(macAddress.parse(mac)).toMatch(/^52:54:00:/);
        expect(generatedMac(instance, guest, index)).toBe(mac);
      }),
    );
  });

  it('differs for every NIC of every guest of an instance', () => {
    const nic = fc.tuple(fc.nat({ max: 2 ** 21 - 1 }), fc.nat({ max: 7 }));
    fc.assert(
      fc.property(instances, nic, nic, (instance, one, other) => {
        fc.pre(one.join() !== other.join());
        expect(generatedMac(instance, ...one)).not.toBe(generatedMac(instance, ...other));
      }),
    );
  });

  it('passes over those taken', () => {
    const instance = 'abcde' as InstanceId;
    const first = generatedMac(instance, 1, 0);
    const second = generatedMac(instance, 1, 0, (mac) => mac === first);
    expect(second).toBe(generatedMac(instance, 1, 1));
  });
});

describe('bridgeMac', () => {
  it('is locally administered and outside the block of guests', () => {
    fc.assert(
      fc.property(instances, fc.nat(), (instance, number) => {
        expect(macAddress.parse(bridgeMac(instance, number))).toMatch(/^02:52:/);
      }),
    );
  });
});

it('is what the contract asks for', () => {
  expectTypeOf(addressing).toExtend<Addressing>();
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bridgeName,
  bridgePrefix,
  tapName,
  tapPrefix,
  vethName,
  vethPeerName,
  vethPeerPrefix,
  vethPrefix,
} from '../../network/link-names.ts';
import type { InstanceId } from '../../protocol/types.ts';

const instances = fc.stringMatching(/^[a-z0-9]{5}$/).map((id) => id as InstanceId);
const numbers = fc.oneof(fc.nat({ max: 50 }), fc.nat({ max: 36 ** 6 }));
const bridges = fc.tuple(instances, numbers);
const taps = fc.tuple(instances, numbers, fc.nat({ max: 35 }));

const nicNames = [
  ['tap', tapName, tapPrefix],
  ['veth', vethName, vethPrefix],
  ['veth peer', vethPeerName, vethPeerPrefix],
] as const;

describe('link names', () => {
  it('fit, and begin with the prefix of their instance', () => {
    fc.assert(
      fc.property(bridges, taps, (bridge, tap) => {
        expect(bridgeName(...bridge)).toMatch(/^[a-z0-9]{8,15}$/);
        for (const [, nameOf, prefixOf] of nicNames) {
          expect(nameOf(...tap)).toMatch(/^[a-z0-9]{9,15}$/);
          expect(nameOf(...tap).startsWith(prefixOf(tap[0]))).toBe(true);
        }
        expect(bridgeName(...bridge).startsWith(bridgePrefix(bridge[0]))).toBe(true);
      }),
    );
  });

  it('are each one link only', () => {
    fc.assert(
      fc.property(instances, taps, taps, bridges, bridges, (shared, tap, otherTap, bridge, otherBridge) => {
        for (const instance of [tap[0], shared]) {
          const one = [instance, tap[1], tap[2]] as const;
          const other = [shared, otherTap[1], otherTap[2]] as const;
          for (const [kind, nameOf] of nicNames)
            for (const [otherKind, otherNameOf] of nicNames)
              expect(nameOf(...one) === otherNameOf(...other)).toBe(
                kind === otherKind && one.join() === other.join(),
              );
        }
        expect(bridgeName(...bridge) === bridgeName(...otherBridge)).toBe(
          bridge.join() === otherBridge.join(),
        );
        for (const [, nameOf] of nicNames) expect(bridgeName(...bridge)).not.toBe(nameOf(...tap));
      }),
    );
  });

  it('belong to no other instance by prefix', () => {
    fc.assert(
      fc.property(taps, instances, (tap, other) => {
        fc.pre(tap[0] !== other);
        for (const [, nameOf, prefixOf] of nicNames)
          expect(nameOf(...tap).startsWith(prefixOf(other))).toBe(false);
      }),
    );
  });

  it('are refused for numbers that would not fit', () => {
    const instance = 'abcde' as InstanceId;
    expect(tapName(instance, 36 ** 7 - 1, 35)).toBe('rtabcdezzzzzzzz');
    expect(vethName(instance, 36 ** 7 - 1, 35)).toBe('rvabcdezzzzzzzz');
    expect(vethPeerName(instance, 36 ** 7 - 1, 35)).toBe('rpabcdezzzzzzzz');
    for (const [, nameOf] of nicNames) {
      expect(() => nameOf(instance, 36 ** 7, 0)).toThrow(RangeError);
      expect(() => nameOf(instance, 0, 36)).toThrow(RangeError);
    }
    expect(() => bridgeName(instance, -1)).toThrow(RangeError);
    expect(() => bridgeName(instance, 1.5)).toThrow(RangeError);
  });
});

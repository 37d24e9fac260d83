import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bridgeName, bridgePrefix, tapName, tapPrefix } from '../../network/link-names.ts';
import type { InstanceId } from '../../protocol/types.ts';

const instances = fc.stringMatching(/^[a-z0-9]{5}$/).map((id) => id as InstanceId);
const numbers = fc.oneof(fc.nat({ max: 50 }), fc.nat({ max: 36 ** 6 }));
const bridges = fc.tuple(instances, numbers);
const taps = fc.tuple(instances, numbers, fc.nat({ max: 35 }));

describe('link names', () => {
  it('fit, and begin with the prefix of their instance', () => {
    fc.assert(
      fc.property(bridges, taps, (bridge, tap) => {
        expect(bridgeName(...bridge)).toMatch(/^[a-z0-9]{8,15}$/);
        expect(tapName(...tap)).toMatch(/^[a-z0-9]{9,15}$/);
        expect(bridgeName(...bridge).startsWith(bridgePrefix(bridge[0]))).toBe(true);
        expect(tapName(...tap).startsWith(tapPrefix(tap[0]))).toBe(true);
      }),
    );
  });

  it('are each one link only', () => {
    fc.assert(
      fc.property(instances, taps, taps, bridges, bridges, (shared, tap, otherTap, bridge, otherBridge) => {
        for (const instance of [tap[0], shared]) {
          const one = [instance, tap[1], tap[2]] as const;
          const other = [shared, otherTap[1], otherTap[2]] as const;
          expect(tapName(...one) === tapName(...other)).toBe(one.join() === other.join());
        }
        expect(bridgeName(...bridge) === bridgeName(...otherBridge)).toBe(
          bridge.join() === otherBridge.join(),
        );
        expect(bridgeName(...bridge)).not.toBe(tapName(...tap));
      }),
    );
  });

  it('belong to no other instance by prefix', () => {
    fc.assert(
      fc.property(taps, instances, (tap, other) => {
        fc.pre(tap[0] !== other);
        expect(tapName(...tap).startsWith(tapPrefix(other))).toBe(false);
      }),
    );
  });

  it('are refused for numbers that would not fit', () => {
    const instance = 'abcde' as InstanceId;
    expect(tapName(instance, 36 ** 7 - 1, 35)).toBe('rtabcdezzzzzzzz');
    expect(() => tapName(instance, 36 ** 7, 0)).toThrow(RangeError);
    expect(() => tapName(instance, 0, 36)).toThrow(RangeError);
    expect(() => bridgeName(instance, -1)).toThrow(RangeError);
    expect(() => bridgeName(instance, 1.5)).toThrow(RangeError);
  });
});

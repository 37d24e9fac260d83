import { describe, expect, it } from 'vitest';
import { settleForwards } from '../../daemon/port-forwards.ts';

const forward = (hostPort: number, more = {}) =>
  ({ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort, guestPort: 22, ...more }) as const;
const nothing: ReadonlySet<number> = new Set();

describe('ports of the host', () => {
  it('are chosen past those that are kept or in use', () => {
    const kept = [{ ...forward(20_000), guest: 'db' }];
    expect(settleForwards('web', [forward(0), forward(0)], kept, new Set([20_001]))).toEqual([
      forward(20_002),
      forward(20_003),
    ]);
  });

  it('are kept for one guest, at one address and at all of them', () => {
    const kept = [{ ...forward(8080, { hostAddress: '0.0.0.0' }), guest: 'db' }];
    expect(() => settleForwards('web', [forward(8080)], kept, nothing)).toThrow(
      expect.objectContaining({
        class: 'AlreadyExists',
        message: 'Port 8080/tcp of 127.0.0.1 is kept for guest db',
      }),
    );
    const udp = forward(8080, { protocol: 'udp' });
    expect(settleForwards('web', [udp], kept, nothing)).toEqual([udp]);
    expect(() => settleForwards('web', [forward(80), forward(80)], [], nothing)).toThrow(
      'kept for guest web',
    );
  });
});

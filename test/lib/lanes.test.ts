import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Lanes } from '../../lib/lanes.ts';

const never = new AbortController().signal;

describe('lanes', () => {
  test('let in as many as they are wide, and the next when one leaves, once', async () => {
    const lanes = new Lanes(2);
    const [first] = await Promise.all([lanes.enter('a', never), lanes.enter('b', never)]);
    const order: string[] = [];
    const third = lanes.enter('c', never).then((leave) => {
      order.push('c');
      return leave;
    });
    const fourth = lanes.enter('d', never).then((leave) => {
      order.push('d');
      return leave;
    });
    expect(lanes.place('a')).toBeUndefined();
    expect(lanes.place('c')).toEqual({ position: 1, ahead: 2 });
    expect(lanes.place('d')).toEqual({ position: 2, ahead: 3 });
    first();
    first();
    (await third)();
    (await fourth)();
    expect(order).toEqual(['c', 'd']);
    expect(lanes.working).toBe(1);
  });

  test('forget whoever gives up waiting, and refuse whoever comes given up', async () => {
    const lanes = new Lanes(1);
    const leave = await lanes.enter('a', never);
    const given = new AbortController();
    const waiting = lanes.enter('b', given.signal);
    const behind = lanes.enter('c', never);
    const reason = new Error('changed my mind');
    given.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(lanes.enter('d', given.signal)).rejects.toBe(reason);
    expect(lanes.place('c')).toEqual({ position: 1, ahead: 1 });
    leave();
    (await behind)();
    expect([lanes.working, lanes.waiting]).toEqual([0, 0]);
  });

  test('are fair and never overfull, whatever is entered, left and given up', async () => {
    const action = fc.oneof(
      fc.constant({ kind: 'enter' as const }),
      fc.record({ kind: fc.constant('leave' as const), which: fc.nat(20) }),
      fc.record({ kind: fc.constant('giveUp' as const), which: fc.nat(20) }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(action, { maxLength: 40 }),
        async (width, actions) => {
          const lanes = new Lanes(width);
          const working = new Map<number, () => void>();
          const begun: number[] = [];
          const waiting = new Map<number, AbortController>();
          let next = 0;
          const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
          for (const each of actions) {
            if (each.kind === 'enter') {
              const number = next;
              next += 1;
              const controller = new AbortController();
              waiting.set(number, controller);
              lanes.enter(String(number), controller.signal).then(
                (leave) => {
                  waiting.delete(number);
                  working.set(number, leave);
                  begun.push(number);
                },
                () => waiting.delete(number),
              );
            } else if (each.kind === 'leave') {
              const [number, leave] = [...working][each.which % Math.max(1, working.size)] ?? [];
              if (number !== undefined && leave) {
                working.delete(number);
                leave();
              }
            } else
              [...waiting.values()][each.which % Math.max(1, waiting.size)]?.abort(new Error('given up'));
            await settle();
            expect(working.size).toBeLessThanOrEqual(width);
            expect(lanes.working).toBe(working.size);
            expect(lanes.waiting).toBe(waiting.size);
            // Nobody waits while there is room, and places are those of arrival.
            expect(waiting.size === 0 || working.size === width).toBe(true);
            const places = [...waiting.keys()].map((number) => lanes.place(String(number))?.position);
            expect(places).toEqual(places.map((_, index) => index + 1));
          }
          expect(begun).toEqual([...begun].sort((a, b) => a - b));
        },
      ),
      { numRuns: 50 },
    );
  });

  test('of no width are refused', () => {
    expect(() => new Lanes(0)).toThrow(RangeError);
  });
});

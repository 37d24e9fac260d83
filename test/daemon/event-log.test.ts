import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EventLog, eventView, matches } from '../../daemon/event-log.ts';
import type { KeptEvent } from '../../daemon/inventory/event-table.ts';
import { type Inventory, openInventory } from '../../daemon/inventory/inventory.ts';
import type { RoostEvent } from '../../protocol/events.ts';
import { eventView as eventSchema } from '../../protocol/events.ts';
import { ManualClock } from './manual-clock.ts';
import { GUEST, nthId } from './records.ts';

let inventory: Inventory;
let log: EventLog;
const clock = new ManualClock();
beforeEach(() => {
  inventory = openInventory(':memory:');
  log = new EventLog(inventory.db, inventory.events, clock);
});
afterEach(() => {
  inventory.db.close();
});

const created: RoostEvent = { event: 'GUEST_CREATED', data: { guest: GUEST, name: 'web1', actor: 'daemon' } };
const lost: RoostEvent = { event: 'EVENTS_LOST', data: { from: 1, to: 2 } };

describe('the event log', () => {
  test('reads only what a filter lets through, from among many', () => {
    const other = nthId(1);
    for (const guest of [GUEST, other, GUEST])
      log.emit({ event: 'GUEST_CREATED', data: { ...created.data, guest } as never });
    log.emit(lost);
    const sequences = (filter: Parameters<EventLog['since']>[2], limit = 10): number[] =>
      log.since(0, limit, filter).events.map(({ sequence }) => sequence);
    expect(sequences({ names: new Set(['GUEST_CREATED']) })).toEqual([1, 2, 3]);
    expect(sequences({ names: new Set(['GUEST_CREATED', 'EVENTS_LOST']) })).toEqual([1, 2, 3, 4]);
    expect(sequences({ names: new Set(['GUEST_CREATED']), guests: new Set([GUEST]) }, 1)).toEqual([1]);
    expect(sequences({ names: new Set(['GUEST_CREATED']), guests: new Set([other]) })).toEqual([2]);
    expect(sequences({ names: new Set(['GUEST_CREATED']), guests: new Set() })).toEqual([]);
    expect(sequences({ names: new Set() })).toEqual([]);
  });

  test('numbers, keeps and tells each event, in order, once', () => {
    const heard: KeptEvent[] = [];
    const stop = log.listen((event) => heard.push(event));
    log.emit(created);
    log.emit(lost, 5);
    stop();
    log.emit(created);
    expect(heard.map(({ sequence, event }) => [sequence, event])).toEqual([
      [1, 'GUEST_CREATED'],
      [2, 'EVENTS_LOST'],
    ]);
    expect(log.since(0, 10).events.slice(0, 2)).toEqual(heard);
    expect(heard[0]).toMatchObject({ guest: GUEST, atMs: clock.now() });
    expect(heard[1]).toMatchObject({ atMs: 5 });
    expect(log.lastSequence).toBe(3);
  });

  test('tells nobody of what was taken back', async () => {
    const heard: number[] = [];
    log.listen(({ sequence }) => heard.push(sequence));
    const fail = (): never => {
      log.emit(created);
      throw new Error('the rest could not be written');
    };
    expect(() => inventory.db.soon(fail)).toThrow('could not be written');
    const good = inventory.db.durably(() => log.emit(lost));
    await expect(inventory.db.durably(fail)).rejects.toThrow('could not be written');
    await good;
    inventory.db.soon(() => {
      log.emit(created);
      expect(heard).toEqual([1]);
    });
    expect([heard, log.lastSequence]).toEqual([[1, 2], 2]);
    expect(log.since(0, 10).events.map(({ event }) => event)).toEqual(['EVENTS_LOST', 'GUEST_CREATED']);
  });

  test('tells in order what is emitted while it tells', () => {
    const heard: number[] = [];
    log.listen(({ sequence }) => {
      if (sequence === 1) log.emit(lost);
    });
    log.listen(({ sequence }) => heard.push(sequence));
    inventory.db.soon(() => {
      log.emit(created);
      log.emit(created);
    });
    expect([heard, log.lastSequence]).toEqual([[1, 2, 3], 3]);
  });

  test('goes on numbering where the daemon before it ended', () => {
    log.emit(created);
    const next = new EventLog(inventory.db, inventory.events, clock);
    expect(next.lastSequence).toBe(1);
    next.emit(created);
    expect(next.lastSequence).toBe(2);
  });

  test('says which sequences after a place are no longer kept', () => {
    expect(log.lostAfter(0)).toBeUndefined();
    for (let n = 0; n < 5; n += 1) log.emit(created);
    expect(log.lostAfter(0)).toBeUndefined();
    inventory.db.sqlite.exec('DELETE FROM event WHERE sequence <= 3');
    expect(log.lostAfter(0)).toEqual({ from: 1, to: 3 });
    expect(log.lostAfter(2)).toEqual({ from: 3, to: 3 });
    expect(log.lostAfter(3)).toBeUndefined();
    expect(log.lostAfter(99)).toBeUndefined();
    inventory.db.sqlite.exec('DELETE FROM event');
    expect(log.lostAfter(0)).toEqual({ from: 1, to: 5 });
  });

  test('an event is shown as the contract declares it', () => {
    log.emit(created, 1_700_000_000_999.9998);
    const [event] = log.since(0, 1).events;
    if (!event) throw new Error('no event');
    const view = eventView(event);
    expect(eventSchema.parse(view)).toEqual(view);
    expect(view.timestamp).toEqual({ seconds: 1_700_000_001, microseconds: 0 });
  });
});

describe('a filter', () => {
  const kept: KeptEvent = { sequence: 1, atMs: 0, event: 'GUEST_CREATED', guest: GUEST, data: {} };
  const { guest: _guest, ...ofNobody } = kept;
  const other = nthId(2);

  test.each([
    ['its name is wanted', { names: new Set(['GUEST_CREATED'] as const) }, kept, true],
    ['its name is not wanted', { names: new Set(['GUEST_DELETED'] as const) }, kept, false],
    [
      'its guest is wanted',
      { names: new Set(['GUEST_CREATED'] as const), guests: new Set([GUEST]) },
      kept,
      true,
    ],
    [
      'its guest is not wanted',
      { names: new Set(['GUEST_CREATED'] as const), guests: new Set([other]) },
      kept,
      false,
    ],
    [
      'it is of no guest',
      { names: new Set(['GUEST_CREATED'] as const), guests: new Set([GUEST]) },
      ofNobody,
      false,
    ],
  ])('an event when %s', (_when, filter, event, expected) => {
    expect(matches(filter, event)).toBe(expected);
  });
});

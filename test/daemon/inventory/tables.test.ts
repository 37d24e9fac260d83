import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { defaultRetention, type EventRetention, EventTable } from '../../../daemon/inventory/event-table.ts';
import type { GuestRecord, GuestStatus } from '../../../daemon/inventory/guest-table.ts';
import { type Inventory, openInventory } from '../../../daemon/inventory/inventory.ts';
import type { HostObject } from '../../../protocol/host-object.ts';
import type { GuestId, ImageId, NetworkId } from '../../../protocol/types.ts';
import { anOperation, aRecord, aStatus, GUEST, NETWORK, nthId } from '../records.ts';

let inventory: Inventory;
beforeEach(() => {
  inventory = openInventory(':memory:');
});
afterEach(() => {
  inventory.db.close();
});

const network = (id = NETWORK, name = 'lan') =>
  inventory.networks.insert({
    id,
    name,
    kind: 'nat',
    subnet: '10.91.7.0/24',
    gateway: '10.91.7.1',
    createdAt: 5,
  });

describe('meta', () => {
  test('keeps facts, the last one told', () => {
    expect(inventory.meta.get('boot-id')).toBeUndefined();
    inventory.meta.set('boot-id', 'a');
    inventory.meta.set('boot-id', 'b');
    expect(inventory.meta.get('boot-id')).toBe('b');
    expect(inventory.meta.binaryFacts('digest')).toBeUndefined();
    inventory.meta.setBinaryFacts('digest', { machines: ['q35'] });
    expect(inventory.meta.binaryFacts('digest')).toEqual({ machines: ['q35'] });
  });
});

describe('guests', () => {
  test('come back as they were recorded, numbered from 1', () => {
    network();
    const { number: _number, generation: _generation, ...recorded } = aRecord();
    const inserted = inventory.guests.insert(recorded);
    expect(inserted).toEqual(aRecord());
    const status = aStatus({
      state: 'failed',
      reason: 'signal 9',
      process: { pid: 7, startTicks: 9, bootId: 'b', startedAt: 4, accel: 'kvm' },
      lastExit: { at: 3, cause: 'killed', detail: 'signal 9' },
      restartCount: 3,
      restartAt: 77,
      cursor: 12,
    });
    inventory.guests.writeStatus(GUEST, status);
    inventory.guests.writeStatus(GUEST, status);
    expect(inventory.guests.all()).toEqual([{ record: aRecord(), status }]);
    expect(inventory.guests.byId(GUEST)).toEqual(aRecord());
    expect(inventory.guests.idByName('web1')).toBe(GUEST);
    expect(inventory.guests.idByName('web2')).toBeUndefined();
  });

  test('of before there were agents have none', () => {
    const { agent: _agent, ...spec } = aRecord().spec;
    const { memoryBytes, cpu, boot, qemu } = spec;
    network();
    inventory.guests.insert(aRecord({ spec: spec as GuestRecord['spec'] }));
    const applied = { memoryBytes, cpu, boot, qemu } as NonNullable<GuestStatus['applied']>;
    inventory.guests.writeStatus(GUEST, aStatus({ applied }));
    const [found] = inventory.guests.all();
    expect(found?.record.spec.agent).toEqual({ enabled: false });
    expect(found?.status?.applied?.agent).toEqual({ enabled: false });
  });

  test('of before there were limits have none', () => {
    const { limits: _limits, ...spec } = aRecord().spec;
    const { memoryBytes, cpu, boot, qemu, agent } = spec;
    network();
    inventory.guests.insert(aRecord({ spec: spec as GuestRecord['spec'] }));
    const applied = { memoryBytes, cpu, boot, qemu, agent } as NonNullable<GuestStatus['applied']>;
    inventory.guests.writeStatus(GUEST, aStatus({ applied }));
    const [found] = inventory.guests.all();
    expect(found?.record.spec.limits).toEqual({});
    expect(found?.status?.applied?.limits).toEqual({});
  });

  test('the number of the next is known before, also when the last is gone', () => {
    network();
    expect(inventory.guests.nextNumber()).toBe(1);
    for (const number of [1, 2]) {
      const id = nthId(number) as GuestId;
      expect(
        inventory.guests.insert({
          ...aRecord({ id }),
          name: `web${number}`,
          spec: { ...aRecord().spec, nics: [] },
        }).number,
      ).toBe(number);
      expect(inventory.guests.nextNumber()).toBe(number + 1);
      inventory.guests.delete(id);
    }
    expect(inventory.guests.nextNumber()).toBe(3);
  });

  test('an update grows the generation and is what all() gives then', () => {
    network();
    const inserted = inventory.guests.insert(aRecord());
    const updated = inventory.guests.update({
      ...inserted,
      name: 'web2',
      target: 'running',
      targetActor: 'guest',
    });
    expect(updated).toEqual({
      ...inserted,
      name: 'web2',
      target: 'running',
      targetActor: 'guest',
      generation: 2,
    });
    expect(inventory.guests.all()[0]?.record).toEqual(updated);
  });

  test('their numbers are never used again', () => {
    network();
    inventory.guests.insert(aRecord());
    inventory.guests.delete(GUEST);
    const second = inventory.guests.insert(aRecord({ id: nthId(2) as GuestId }));
    expect(second.number).toBe(2);
  });

  test('their addresses are taken until they are deleted', () => {
    network();
    inventory.guests.insert(aRecord());
    expect(inventory.guests.addressesOf(NETWORK)).toEqual(['10.91.7.2']);
    expect(inventory.guests.macTaken('52:54:00:00:00:01')).toBe(true);
    expect(inventory.networks.users(NETWORK)).toEqual(['web1']);
    inventory.guests.delete(GUEST);
    expect(inventory.guests.addressesOf(NETWORK)).toEqual([]);
    expect(inventory.guests.macTaken('52:54:00:00:00:01')).toBe(false);
    expect(inventory.guests.all()).toEqual([]);
  });

  test('two of one name are refused', () => {
    network();
    inventory.guests.insert(aRecord());
    const other = aRecord({ id: nthId(2) as GuestId });
    expect(() => inventory.guests.insert({ ...other, spec: { ...other.spec, nics: [] } })).toThrow('UNIQUE');
  });
});

describe('images', () => {
  const image = nthId(50) as ImageId;
  const stored = { format: 'qcow2', sizeBytes: 10, virtualSizeBytes: 512, sha256: 'ab' } as const;
  const source = { kind: 'file', path: '/srv/debian.qcow2' } as const;
  const asked = { id: image, name: 'debian/12', version: '1', kind: 'disk', source, createdAt: 5 } as const;

  test('are importing until they are ready, and come back as recorded', () => {
    const importing = { ...asked, number: 1, state: 'importing' } as const;
    expect(inventory.images.insert(asked)).toEqual(importing);
    expect(inventory.images.versions('debian/12')).toEqual([importing]);
    inventory.images.ready(image, stored);
    expect(inventory.images.byId(image)).toEqual({ ...importing, state: 'ready', stored });
    inventory.images.setState(image, 'deleting');
    expect(inventory.images.all()).toEqual([{ ...importing, state: 'deleting', stored }]);
    expect(inventory.images.delete(image)).toEqual([]);
    expect(inventory.images.byId(image)).toBeUndefined();
    expect(inventory.images.versions('debian/12')).toEqual([]);
  });

  test('of one name are apart by version, the newest first', () => {
    inventory.images.insert(asked);
    inventory.images.insert({ ...asked, id: nthId(51) as ImageId, version: '2', createdAt: 1 });
    expect(inventory.images.versions('debian/12').map(({ version }) => version)).toEqual(['2', '1']);
    const again = { ...asked, id: nthId(52) as ImageId };
    expect(() => inventory.images.insert(again)).toThrow('UNIQUE');
  });

  test('one that a guest needs cannot be deleted', () => {
    network();
    inventory.images.insert(asked);
    const record = aRecord();
    const disks = [{ name: 'disk0', image, sizeBytes: 512, readOnly: false }];
    inventory.guests.insert({ ...record, spec: { ...record.spec, disks } });
    expect(inventory.images.users(image)).toEqual(['web1']);
    expect(() => inventory.images.delete(image)).toThrow('FOREIGN KEY');
    inventory.guests.delete(GUEST);
    inventory.images.delete(image);
    expect(inventory.images.all()).toEqual([]);
  });

  test('take the aliases along that mean nothing without them', () => {
    const second = nthId(51) as ImageId;
    inventory.images.insert(asked);
    inventory.images.insert({ ...asked, id: second, version: '2' });
    const name = { alias: 'stable', name: 'debian/12', createdAt: 7 };
    const exact = { alias: 'old', name: 'debian/12', version: '1', createdAt: 7 };
    inventory.images.setAlias(name);
    inventory.images.setAlias({ ...exact, version: '2' });
    inventory.images.setAlias(exact);
    expect(inventory.images.aliases()).toEqual([exact, name]);
    expect(inventory.images.delete(image)).toEqual([exact]);
    expect(inventory.images.delete(second)).toEqual([name]);
    inventory.images.deleteAlias('stable');
    expect(inventory.images.aliases()).toEqual([]);
  });
});

describe('networks', () => {
  test('come back as recorded, with their state and its reason', () => {
    const inserted = network();
    expect(inserted).toEqual({
      id: NETWORK,
      number: 1,
      name: 'lan',
      kind: 'nat',
      subnet: '10.91.7.0/24',
      gateway: '10.91.7.1',
      state: 'creating',
      createdAt: 5,
    });
    inventory.networks.setState(NETWORK, 'failed', 'no bridge');
    expect(inventory.networks.find('lan')).toEqual({ ...inserted, state: 'failed', reason: 'no bridge' });
    inventory.networks.setState(NETWORK, 'ready');
    expect(inventory.networks.find(NETWORK)).toEqual({ ...inserted, state: 'ready' });
    inventory.networks.delete(NETWORK);
    expect(inventory.networks.all()).toEqual([]);
    expect(network(nthId(60) as NetworkId).number).toBe(2);
  });
});

describe('tokens', () => {
  test('are found by the hash of their secret, and know when they were used', () => {
    inventory.tokens.insert({ name: 'ci', role: 'read', createdAt: 5 }, 'h1');
    expect(inventory.tokens.byHash('h1')).toEqual({ name: 'ci', role: 'read', createdAt: 5 });
    expect(inventory.tokens.byHash('h2')).toBeUndefined();
    inventory.tokens.used('ci', 9);
    expect(inventory.tokens.byName('ci')?.lastUsedAt).toBe(9);
    expect(inventory.tokens.delete('ci')).toBe(true);
    expect(inventory.tokens.delete('ci')).toBe(false);
    expect(inventory.tokens.all()).toEqual([]);
  });
});

describe('operations', () => {
  test('come back as they were written, with their steps in order', () => {
    const operation = anOperation(1, { idempotencyKey: 'k', deadlineAt: 99 });
    inventory.operations.insert(operation);
    expect(inventory.operations.byId(operation.id)).toEqual(operation);
    const ended = {
      ...operation,
      state: 'failed',
      cancelRequested: true,
      startedAt: 2,
      endedAt: 3,
      error: { class: 'HostError', desc: 'no', data: { a: 1 }, hint: 'h' },
      result: { guest: GUEST },
    } as const;
    inventory.operations.write(ended);
    inventory.operations.writeStep(operation.id, 1, { name: 'second', state: 'running', startedAt: 5 });
    inventory.operations.writeStep(operation.id, 0, {
      name: 'first',
      state: 'done',
      startedAt: 4,
      endedAt: 5,
    });
    inventory.operations.writeStep(operation.id, 1, {
      name: 'second',
      state: 'failed',
      startedAt: 5,
      endedAt: 6,
    });
    expect(inventory.operations.byKey('k')).toEqual(ended);
    expect(inventory.operations.steps(operation.id)).toEqual([
      { name: 'first', state: 'done', startedAt: 4, endedAt: 5 },
      { name: 'second', state: 'failed', startedAt: 5, endedAt: 6 },
    ]);
  });

  test('those without an end are unfinished, in the order they were accepted', () => {
    for (const sequence of [3, 1, 2]) inventory.operations.insert(anOperation(sequence));
    inventory.operations.write(anOperation(2, { state: 'succeeded', endedAt: 9 }));
    expect(inventory.operations.unfinished().map(({ sequence }) => sequence)).toEqual([1, 3]);
    expect(inventory.operations.highestSequence()).toBe(3);
  });

  test('a key is used once', () => {
    inventory.operations.insert(anOperation(1, { idempotencyKey: 'k' }));
    expect(() => inventory.operations.insert(anOperation(2, { idempotencyKey: 'k' }))).toThrow('UNIQUE');
  });

  test('are queried newest first, by id, subject, state and place', () => {
    for (let sequence = 1; sequence <= 6; sequence += 1)
      inventory.operations.insert(
        anOperation(sequence, {
          subject: { kind: 'guest', id: nthId(100 + (sequence % 2)), name: sequence % 2 ? 'odd' : 'even' },
          ...(sequence > 4 ? { state: 'succeeded', endedAt: 9 } : {}),
        }),
      );
    const sequences = (query: Parameters<typeof inventory.operations.query>[0]): number[] =>
      inventory.operations.query(query).map(({ sequence }) => sequence);
    expect(sequences({ limit: 3 })).toEqual([6, 5, 4]);
    expect(sequences({ limit: 3, before: 4 })).toEqual([3, 2, 1]);
    expect(sequences({ limit: 9, subject: 'odd' })).toEqual([5, 3, 1]);
    expect(sequences({ limit: 9, subject: nthId(100) })).toEqual([6, 4, 2]);
    expect(sequences({ limit: 9, states: ['succeeded'] })).toEqual([6, 5]);
    expect(sequences({ limit: 9, states: [] })).toEqual([]);
    expect(sequences({ limit: 9, ids: [nthId(2), nthId(9)] })).toEqual([2]);
  });

  test('old ones go when many have come; unfinished ones stay', () => {
    inventory.operations.insert(anOperation(1));
    inventory.operations.insert(anOperation(2, { state: 'succeeded', endedAt: 9 }));
    inventory.operations.writeStep(anOperation(2).id, 0, { name: 's', state: 'done' });
    inventory.operations.insert(anOperation(21_000, { state: 'succeeded', endedAt: 9 }));
    inventory.operations.insert(anOperation(1_500, { state: 'succeeded', endedAt: 9 }));
    expect(inventory.operations.query({ limit: 10 }).map(({ sequence }) => sequence)).toEqual([
      21_000, 1_500, 1,
    ]);
    expect(inventory.operations.steps(anOperation(2).id)).toEqual([]);
  });
});

describe('the ledger', () => {
  const tap: HostObject = { kind: 'tap', name: 'rstap0' };
  const table: HostObject = { kind: 'nft-table', name: 'inet/roost' };

  test('holds what each owner has, by scope', () => {
    const guest = { kind: 'guest', id: GUEST } as const;
    const other = { kind: 'guest', id: nthId(2) } as const;
    inventory.ledger.record(guest, 'existence', [{ kind: 'directory', name: '/d' }], 1);
    inventory.ledger.record(guest, 'run', [tap, table], 1);
    inventory.ledger.record(guest, 'run', [tap, table], 2);
    inventory.ledger.record(other, 'run', [table], 3);
    expect(inventory.ledger.all()).toHaveLength(4);
    expect([...inventory.ledger.keys()].sort()).toEqual([
      'directory /d',
      'nft-table inet/roost',
      'tap rstap0',
    ]);
    inventory.ledger.release(guest, 'run');
    expect([...inventory.ledger.keys()].sort()).toEqual(['directory /d', 'nft-table inet/roost']);
    inventory.ledger.release(guest);
    inventory.ledger.release(other);
    expect(inventory.ledger.all()).toEqual([]);
  });
});

describe('events', () => {
  const event = (at: number) =>
    ({
      atMs: at,
      event: 'GUEST_CREATED',
      guest: GUEST,
      data: { guest: GUEST, name: 'web1', actor: 'daemon' },
    }) as const;

  test('are numbered from 1 and read from any place', () => {
    expect(inventory.events.bounds()).toEqual({ oldest: 1, newest: 0 });
    for (let at = 1; at <= 5; at += 1) expect(inventory.events.insert(event(at + 0.25))).toBe(at);
    expect(inventory.events.since(3, 10)).toEqual({
      events: [
        { ...event(4.25), sequence: 4 },
        { ...event(5.25), sequence: 5 },
      ],
      through: 5,
    });
    const first = inventory.events.since(0, 2);
    expect(first.events.map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect(first.through).toBe(2);
    expect(inventory.events.since(9, 2)).toEqual({ events: [], through: 9 });
    expect(inventory.events.bounds()).toEqual({ oldest: 1, newest: 5 });
  });

  test('that a filter seldom lets through are looked for bit by bit', () => {
    const rare = { atMs: 1, event: 'OPERATION_CHANGED', data: {} } as const;
    inventory.db.soon(() => {
      for (let at = 1; at <= 5000; at += 1) inventory.events.insert(at === 4999 ? rare : event(at));
    });
    const found: number[] = [];
    const stops: number[] = [];
    for (let after = 0; after < 5000; ) {
      const slice = inventory.events.since(after, 100, { names: new Set(['OPERATION_CHANGED']) });
      found.push(...slice.events.map(({ sequence }) => sequence));
      stops.push(slice.through);
      after = slice.through;
    }
    expect(found).toEqual([4999]);
    expect(stops).toEqual([2000, 4000, 5000]);
  });

  /** A table with bounds of its own, on the same database. */
  const bounded = (retention: Partial<EventRetention>): EventTable =>
    new EventTable(inventory.db, { ...defaultRetention, ...retention });
  const fill = (table: EventTable, count: number, atOf: (n: number) => number = (n) => n): void =>
    inventory.db.soon(() => {
      for (let n = 1; n <= count; n += 1) table.insert(event(atOf(n)));
    });

  test('are bounded in size: the newest that fit are kept, without a gap', () => {
    const bytes = JSON.stringify(event(1).data).length + 100;
    const table = bounded({ keepBytes: 500 * bytes });
    fill(table, 3_000);
    expect(table.bounds()).toEqual({ oldest: 2_501, newest: 3_000 });
    expect(table.since(0, 10_000).events).toHaveLength(500);
    fill(table, 10);
    expect(table.bounds()).toEqual({ oldest: 2_501, newest: 3_010 });
  });

  test('are bounded in age, and one that is told late removes nothing young', () => {
    const table = bounded({ keepMs: 1_500 });
    fill(table, 3_000);
    expect(table.bounds()).toEqual({ oldest: 1_500, newest: 3_000 });
    fill(table, 1_000, (n) => (n === 1_000 ? 10 : 3_000 + n));
    expect(table.bounds()).toEqual({ oldest: 1_500, newest: 4_000 });
  });

  test('keep the newest, however small the bound, and go step by step under a lowered one', () => {
    fill(inventory.events, 12_999);
    const table = bounded({ keepBytes: 1 });
    fill(table, 1);
    expect(table.bounds()).toEqual({ oldest: 5_001, newest: 13_000 });
    fill(table, 2_000);
    expect(table.bounds()).toEqual({ oldest: 15_000, newest: 15_000 });
  });

  test('all gone, the next still gets the next number', () => {
    inventory.events.insert(event(1));
    inventory.db.sqlite.exec('DELETE FROM event');
    expect(inventory.events.bounds()).toEqual({ oldest: 2, newest: 1 });
    expect(inventory.events.insert(event(2))).toBe(2);
  });
});

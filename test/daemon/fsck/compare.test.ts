import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compare, type Facts, type Row } from '../../../daemon/fsck/compare.ts';
import type { HostObject } from '../../../protocol/host-object.ts';
import type { OperationId } from '../../../protocol/types.ts';

const tap: HostObject = { kind: 'tap', name: 'rtabcde10' };
const directory: HostObject = { kind: 'directory', name: '/s/guests/g' };
const lock: HostObject = { kind: 'process', name: '/s/guests/g.lock' };
const row = (object: HostObject, scope: Row['scope'] = 'run', kind: Row['owner']['kind'] = 'guest'): Row => ({
  object,
  owner: { kind, id: 'g' },
  scope,
});

const facts = (given: Partial<Facts>): Facts => ({
  before: [],
  after: given.before ?? [],
  host: [],
  known: ({ kind, id }) => ({ kind, id, name: 'web' }),
  isBusy: () => false,
  namedOwner: () => ({ kind: 'guest', id: 'g' }),
  lastOperation: () => undefined,
  processes: new Map(),
  recordIn: () => undefined,
  ...given,
});

const unknown = { known: () => undefined };
const deletion = {
  id: 'op' as OperationId,
  kind: 'guest-delete',
  state: 'succeeded',
  subjectName: 'web',
  leavesNothing: true,
};

describe('a difference between ledger and host', () => {
  test.each<[string, Partial<Facts>, object]>([
    ['a run that was not cleared away', { before: [row(lock)] }, { kind: 'lost', mend: { by: 'repair' } }],
    [
      'files of an image, which nobody can make again',
      { before: [row(directory, 'existence', 'image')] },
      { kind: 'missing-file', mend: { by: 'person' } },
    ],
    [
      'a part of a network',
      { before: [row(tap, 'existence', 'network')] },
      { kind: 'lost', mend: { by: 'repair' } },
    ],
    [
      'a row whose owner and object are gone',
      { before: [row(tap)], ...unknown, lastOperation: () => deletion },
      { kind: 'abandoned', operation: 'op', mend: { by: 'repair', how: 'forgets the row' } },
    ],
    [
      'what a deletion gave up on',
      { before: [row(directory)], host: [directory], ...unknown, lastOperation: () => deletion },
      { kind: 'abandoned', owner: { name: 'web' }, mend: { by: 'repair', how: 'removes it' } },
    ],
    [
      'a process that a deletion gave up on: only a person may end it',
      { before: [row(lock)], host: [lock], ...unknown, lastOperation: () => deletion },
      { kind: 'abandoned', mend: { by: 'person' } },
    ],
    ['an object whose row is missing', { host: [tap] }, { kind: 'leaked', mend: { by: 'repair' } }],
    [
      'a link of nobody',
      { host: [tap], namedOwner: () => undefined },
      { kind: 'leaked', mend: { by: 'repair', how: 'removes it' } },
    ],
    [
      'a directory of nobody, which may hold something',
      { host: [directory], ...unknown },
      { kind: 'leaked', mend: { by: 'person' } },
    ],
    [
      'a directory of a guest that was deleted',
      { host: [directory], ...unknown, lastOperation: () => deletion },
      { kind: 'leaked', mend: { by: 'repair' } },
    ],
    [
      'disks with a record of a guest that is not known',
      { host: [directory], ...unknown, recordIn: () => 'web' },
      { kind: 'stray-record', owner: { name: 'web' }, mend: { by: 'person' } },
    ],
    [
      'a process of a guest that is not known',
      { host: [lock], ...unknown, processes: new Map([[lock.name, { pid: 77, name: 'web' }]]) },
      { kind: 'stray-process', cause: expect.stringContaining('process 77'), mend: { by: 'person' } },
    ],
  ])('%s', (_what, given, expected) => {
    expect(compare(facts(given))).toMatchObject([expected]);
  });

  test.each<[string, Partial<Facts>]>([
    ['rows and objects agree', { before: [row(tap)], host: [tap] }],
    ['the row was written meanwhile', { before: [], after: [row(tap)], host: [] }],
    ['the row went meanwhile', { before: [row(tap)], after: [], host: [] }],
    ['the object was made and its row written meanwhile', { before: [], after: [row(tap)], host: [tap] }],
    ['work on the owner is under way', { before: [row(tap)], host: [lock], isBusy: () => true }],
  ])('is none while %s', (_what, given) => {
    expect(compare(facts(given))).toEqual([]);
  });

  test('is told once for every object on one side alone, and for none on both', () => {
    const objects = fc.uniqueArray(fc.integer({ min: 0, max: 40 }));
    fc.assert(
      fc.property(objects, objects, (inLedger, onHost) => {
        const named = (number: number): HostObject => ({ kind: 'tap', name: `rtabcde${number}` });
        const found = compare(
          facts({ before: inLedger.map((number) => row(named(number))), host: onHost.map(named) }),
        );
        const expected = [
          ...inLedger.filter((number) => !onHost.includes(number)).map((number) => `lost rtabcde${number}`),
          ...onHost.filter((number) => !inLedger.includes(number)).map((number) => `leaked rtabcde${number}`),
        ];
        expect(found.map(({ kind, object }) => `${kind} ${object?.name}`).sort()).toEqual(expected.sort());
      }),
    );
  });
});

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type LeftOver, type Settlement, settle } from '../../../daemon/operations/settle.ts';
import { type OperationState, operationStates } from '../../../protocol/operation.ts';

const kinds = [
  'guest-create',
  'guest-start',
  'guest-stop',
  'guest-delete',
  'guest-pause',
  'guest-resume',
  'guest-reset',
  'guest-disk-attach',
  'guest-disk-detach',
  'guest-disk-resize',
  'guest-disk-delete',
  'guest-cdrom-insert',
  'guest-cdrom-eject',
  'guest-nic-attach',
  'guest-nic-detach',
  'guest-fsfreeze-freeze',
  'guest-fsfreeze-thaw',
  'image-import',
  'image-delete',
  'network-create',
  'network-delete',
] as const;

const left = (kind: string, change: Partial<LeftOver> = {}): LeftOver => ({
  kind,
  state: 'running',
  cancelRequested: false,
  hostBooted: false,
  ...change,
});

const rows: readonly (readonly [string, LeftOver, Settlement['kind']])[] = [
  ...kinds
    .filter((kind) => kind !== 'guest-reset')
    .map((kind) => [`a ${kind} that was running goes on`, left(kind), 'continue'] as const),
  ...kinds.map(
    (kind) => [`a ${kind} that was queued goes on`, left(kind, { state: 'queued' }), 'continue'] as const,
  ),
  ...kinds.map(
    (kind) =>
      [`a ${kind} that was being undone is undone`, left(kind, { state: 'undoing' }), 'undo'] as const,
  ),
  ['a cancelled start is undone', left('guest-start', { cancelRequested: true }), 'undo'],
  ['a cancelled creation is undone', left('guest-create', { cancelRequested: true }), 'undo'],
  ...(['guest-delete', 'image-delete', 'network-delete'] as const).flatMap((kind) => [
    [
      `a ${kind} that had begun goes on although it was cancelled: there is no way back`,
      left(kind, { cancelRequested: true }),
      'continue',
    ] as const,
    [
      `a ${kind} that had not begun is given up when it was cancelled`,
      left(kind, { cancelRequested: true, state: 'queued' }),
      'undo',
    ] as const,
  ]),
  ['a start is undone after a boot of the host', left('guest-start', { hostBooted: true }), 'undo'],
  ['a stop goes on after a boot of the host', left('guest-stop', { hostBooted: true }), 'continue'],
  ['a deletion goes on after a boot of the host', left('guest-delete', { hostBooted: true }), 'continue'],
  ['a pause fails after a boot of the host', left('guest-pause', { hostBooted: true }), 'fail'],
  ['a reset that may have been seen is not repeated', left('guest-reset'), 'fail'],
  [
    'a start whose guest has run and shut itself down has succeeded',
    left('guest-start', { process: 'shut-down-by-guest' }),
    'succeed',
  ],
  [
    'a queued start goes on although the run before ended by the guest itself',
    left('guest-start', { state: 'queued', process: 'shut-down-by-guest' }),
    'continue',
  ],
  ['a start whose process is gone is done again', left('guest-start', { process: 'gone' }), 'continue'],
];

describe('settle', () => {
  test.each(rows)('%s', (_sentence, leftOver, expected) => {
    expect(settle(leftOver).kind).toBe(expected);
  });

  test('answers for whatever was left, and says why it gives up', () => {
    fc.assert(
      fc.property(
        fc.record({
          kind: fc.constantFrom(...kinds, 'something-newer'),
          state: fc.constantFrom(...(Object.keys(operationStates) as OperationState[])),
          cancelRequested: fc.boolean(),
          hostBooted: fc.boolean(),
          process: fc.constantFrom(
            'alive' as const,
            'gone' as const,
            'unknown' as const,
            'shut-down-by-guest' as const,
          ),
        }),
        (leftOver) => {
          const settlement = settle(leftOver);
          const needsReason = settlement.kind === 'undo' || settlement.kind === 'fail';
          expect('why' in settlement && settlement.why !== '').toBe(needsReason);
        },
      ),
    );
  });
});

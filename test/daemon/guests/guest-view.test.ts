import { describe, expect, test } from 'vitest';
import { guestView, pendingChanges } from '../../../daemon/guests/guest-view.ts';
import type { GuestRecord, GuestStatus } from '../../../daemon/inventory/guest-table.ts';
import { guestView as guestViewSchema } from '../../../protocol/guest.ts';
import type { NetworkId, OperationId } from '../../../protocol/types.ts';
import { aRecord, aStatus } from '../records.ts';

const view = (record: GuestRecord, status: GuestStatus, stale = false) =>
  guestView({ record, status, stale, agent: { state: 'absent' } }, () => 'lan');

describe('the view of a guest', () => {
  test('is what the contract declares, stopped and running', () => {
    const stopped = view(aRecord(), aStatus());
    expect(guestViewSchema.parse(stopped)).toEqual(stopped);
    const running = guestView(
      {
        record: aRecord(),
        status: aStatus({
          state: 'paused',
          reason: 'io-error',
          process: { pid: 7, startTicks: 1, bootId: 'b', startedAt: 5, accel: 'tcg' },
          lastExit: { at: 1, cause: 'killed', detail: 'signal 9' },
          restartCount: 2,
          restartAt: 99,
        }),
        stale: true,
        agent: { state: 'connected', since: 4, version: '7.2' },
        operation: {
          id: '01890a5d-ac96-774b-bcce-b302099a8057' as OperationId,
          kind: 'guest-stop',
          queued: 1,
        },
      },
      () => 'lan',
    );
    expect(guestViewSchema.parse(running)).toEqual(running);
    expect(running).toMatchObject({
      stale: true,
      agent: { enabled: true, state: 'connected', since: 4, version: '7.2' },
      reason: 'io-error',
      process: { pid: 7, startedAt: 5, accel: 'tcg' },
      restarts: { count: 2, nextAt: 99 },
      operation: { kind: 'guest-stop', queued: 1 },
    });
  });

  test('shows networks by name and disks with the serials that the guest sees', () => {
    const shown = guestView(
      { record: aRecord(), status: aStatus(), stale: false, agent: { state: 'absent' } },
      (id: NetworkId) => `name of ${id}`,
    );
    expect(shown.nics[0]?.network).toBe(`name of ${aRecord().spec.nics[0]?.network}`);
    expect(shown.disks[0]?.serial).toBe('rs-1');
  });

  test('is tainted by the reasons of extra arguments', () => {
    const { spec, ...rest } = aRecord();
    const tainted = { ...spec, qemu: { ...spec.qemu, extraArgs: [{ argument: '-foo', reason: 'a trial' }] } };
    expect(view({ ...rest, spec: tainted }, aStatus()).tainted).toEqual(['a trial']);
  });
});

describe('pending changes', () => {
  const { memoryBytes, cpu, boot, agent, qemu, limits } = aRecord().spec;
  const applied = { memoryBytes, cpu, boot, agent, qemu, limits };

  test('a guest without a process has none', () => {
    expect(pendingChanges(aRecord(), aStatus())).toEqual([]);
  });

  test('a process with the recorded settings has none', () => {
    expect(pendingChanges(aRecord(), aStatus({ applied }))).toEqual([]);
  });

  test('each setting that differs is named', () => {
    const changed = { ...applied, memoryBytes: memoryBytes * 2, cpu: { ...cpu, count: 4 } };
    expect(pendingChanges(aRecord(), aStatus({ applied: changed }))).toEqual(['memoryBytes', 'cpu']);
  });

  test('the order of members makes no difference', () => {
    const reordered = { ...applied, cpu: Object.fromEntries(Object.entries(cpu).reverse()) as typeof cpu };
    expect(pendingChanges(aRecord(), aStatus({ applied: reordered }))).toEqual([]);
  });
});

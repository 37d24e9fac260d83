/** Records as the inventory keeps them, for tests: complete, and changed where a test says so. */
import type { GuestRecord, GuestStatus } from '../../daemon/inventory/guest-table.ts';
import type { OperationRecord } from '../../daemon/inventory/operation-table.ts';
import { guestSpec } from '../../protocol/guest.ts';
import type { GuestId, MacAddress, NetworkId, OperationId } from '../../protocol/types.ts';

export const GUEST = '01890a5d-ac96-774b-bcce-b302099a8058' as GuestId;
export const NETWORK = '01890a5d-ac96-774b-bcce-b302099a8059' as NetworkId;

/** The nth id of a kind: a UUID, and the same each time. */
export const nthId = (n: number): string => `01890a5d-ac96-774b-bcce-${n.toString(16).padStart(12, '0')}`;

export const aRecord = (change: Partial<GuestRecord> = {}): GuestRecord => {
  const {
    name,
    machine: _machine,
    boot: _boot,
    cloudInit: _told,
    program: _run,
    ...spec
  } = guestSpec.parse({ name: 'web1', driver: 'fake' });
  const mac = '52:54:00:00:00:01' as MacAddress;
  return {
    id: GUEST,
    number: 1,
    name,
    spec: {
      ...spec,
      boot: { kind: 'disk' },
      agent: { enabled: true },
      disks: [{ name: 'disk0', sizeBytes: 1024 * 1024, readOnly: false }],
      cdroms: [],
      keptDisks: [],
      nics: [{ name: 'nic0', network: NETWORK, mac, ipv4: '10.91.7.2' }],
    },
    machine: {
      formatVersion: 1,
      type: 'fake-1.0',
      cpuModel: 'max',
      disks: [{ name: 'disk0', serial: 'rs-1', address: '0' }],
      nics: [{ name: 'nic0', mac, address: '1' }],
      settings: { uuid: GUEST },
    },
    target: 'stopped',
    targetActor: 'unix:uid=0,pid=1',
    generation: 1,
    createdAt: 1_800_000_000_000,
    ...change,
  };
};

export const aStatus = (change: Partial<GuestStatus> = {}): GuestStatus => ({
  state: 'stopped',
  observedAt: 1_800_000_000_000,
  cursor: 0,
  restartCount: 0,
  ...change,
});

export const anOperation = (sequence: number, change: Partial<OperationRecord> = {}): OperationRecord => ({
  id: nthId(sequence) as OperationId,
  sequence,
  kind: 'guest-start',
  subject: { kind: 'guest', id: GUEST, name: 'web1' },
  actor: 'unix:uid=0,pid=1',
  state: 'queued',
  arguments: { guest: 'web1' },
  cancelRequested: false,
  createdAt: 1_800_000_000_000 + sequence,
  ...change,
});

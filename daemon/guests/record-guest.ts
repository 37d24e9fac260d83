/** A new guest in the inventory, with all that it gets for itself. In the accepting transaction. */
import type { Accepted } from '../../protocol/operation.ts';
import type { Actor } from '../../protocol/types.ts';
import type { GuestRecord, StoredNic, StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Operations } from '../operations/operations.ts';
import { allocateNic } from './allocate-nic.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import { existenceObjects, recordRun } from './launch-of.ts';
import { type Asker, requireImages } from './refusals.ts';
import type { GuestRegistry } from './registry.ts';

/** What of the host and its networks it gets. `busy`: see `busyPorts`. Errors: those of `allocateNic`; of its images. */
export const allocateFor = (
  house: House,
  {
    name,
    spec,
    busy,
  }: { readonly name: string; readonly spec: StoredSpec; readonly busy: ReadonlySet<number> },
): StoredSpec => {
  requireImages(house, spec);
  const nics: StoredNic[] = [];
  for (const nic of spec.nics) nics.push(allocateNic(house, nic, { name, others: nics, busyPorts: busy }));
  return { ...spec, nics };
};

/** A container has ids of the host for itself. Errors: ResourceExhausted. */
const withIds = ({ inventory, idRangeFor }: House, spec: StoredSpec): StoredSpec =>
  spec.boot.kind === 'root'
    ? { ...spec, idRange: idRangeFor(inventory.guests.nextNumber(), inventory.guests.idRanges()) }
    : spec;

export const insertGuest = (
  { house, registry }: { readonly house: House; readonly registry: GuestRegistry },
  made: Pick<GuestRecord, 'id' | 'name' | 'spec' | 'machine'>,
  target: GuestRecord['target'],
  { actor }: Pick<Asker, 'actor'>,
): Guest => {
  const { inventory, clock } = house;
  const now = clock.now();
  const spec = withIds(house, made.spec);
  const record = inventory.guests.insert({ ...made, spec, target, targetActor: actor, createdAt: now });
  const guest = registry.created(record);
  inventory.guests.writeStatus(made.id, guest.status);
  inventory.ledger.record({ kind: 'guest', id: made.id }, 'existence', existenceObjects(guest), now);
  return guest;
};

/** In the same transaction, for one that is to run as soon as it is made. */
export const insertStart = (guest: Guest, actor: Actor): OperationRecord => {
  recordRun(guest);
  return guest.house.operations.insert({
    kind: 'guest-start',
    subject: { kind: 'guest', id: guest.id, name: guest.name },
    actor,
    arguments: {},
  });
};

/** What was answered when this creation was asked for the first time. */
export const createdBefore = (
  operations: Operations,
  creation: OperationRecord,
  start: boolean,
): Accepted => {
  const { id } = creation.subject;
  if (!start) return { operation: creation.id, id };
  const ofGuest = operations.query({ subject: id, limit: 10_000 });
  const starting = ofGuest.findLast((operation) => operation.kind === 'guest-start');
  return { operation: starting?.id ?? creation.id, id };
};

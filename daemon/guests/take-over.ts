/** A guest that has waited becomes the one that somebody asks for: another record, and a start that finds most of it done. */
import { isDeepStrictEqual } from 'node:util';
import type { CommandArguments } from '../../protocol/commands.ts';
import type { Actor } from '../../protocol/types.ts';
import type { GuestRecord, GuestStatus, StoredSpec } from '../inventory/guest-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { isWarm } from './forks.ts';
import type { Guest } from './guest.ts';

export interface TakenOver {
  readonly guest: Guest;
  readonly record: GuestRecord;
  readonly status: GuestStatus;
  readonly starting: OperationRecord;
}

/**
 * Whether one that nobody had asked for may be it: its addresses are its own already, and its program is not. It is on the
 * networks of its template, so that nobody is kept from another by a guest that nobody sees.
 */
export const couldHaveWaited = (
  { nics, start }: Pick<CommandArguments<'guest-create'>, 'nics' | 'start'>,
  like: Pick<StoredSpec, 'nics'>,
  template: Guest,
): boolean =>
  start &&
  !isWarm(template) &&
  nics.every(
    ({ mac, ipv4, forwards = [] }) => mac === undefined && ipv4 === undefined && forwards.length === 0,
  ) &&
  isDeepStrictEqual(places(like), places(template.record.spec));

const places = ({ nics }: Pick<StoredSpec, 'nics'>): object =>
  nics.map(({ name, network }) => ({ name, network }));

/** In the transaction: nobody has asked for its end meanwhile. */
const isFree = (guest: Guest): boolean =>
  guest.recorded().spec.waiting !== undefined &&
  guest.house.operations.query({ subject: guest.id, limit: 8 }).every(({ endedAt }) => endedAt !== undefined);

/**
 * What is asked for, with the addresses and the disks that it has: they lie on what its template was when it was made.
 * Pure.
 */
const specOf = (waiting: StoredSpec, { waiting: _not, ...spec }: StoredSpec): StoredSpec => ({
  ...spec,
  disks: waiting.disks,
  nics: spec.nics.map((nic, index) => {
    const { mac, ipv4, port } = waiting.nics[index] ?? nic;
    return {
      ...nic,
      mac,
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(port === undefined ? {} : { port }),
    };
  }),
});

/** In the accepting transaction; `guest` is reserved for it. Undefined where its end was accepted before. */
export const takeOver = (
  guest: Guest,
  { name, spec }: Pick<GuestRecord, 'name' | 'spec'>,
  asked: Pick<OperationRecord, 'arguments'> & {
    readonly actor: Actor;
    readonly idempotencyKey: string | undefined;
  },
): TakenOver | undefined => {
  if (!isFree(guest)) return undefined;
  const { inventory, operations, events, clock } = guest.house;
  const now = clock.now();
  const { actor } = asked;
  const before = guest.recorded();
  const record = inventory.guests.update({
    ...before,
    name,
    spec: specOf(before.spec, spec),
    target: 'running',
    targetActor: actor,
    createdAt: now,
  });
  const subject = { kind: 'guest', id: guest.id, name } as const;
  operations.insert({ kind: 'guest-create', subject, ...asked, already: true });
  const starting = operations.insert({ kind: 'guest-start', subject, actor, arguments: { waited: true } });
  const status = statusOf(guest.status, starting, now);
  inventory.guests.writeStatus(guest.id, status);
  events.emit({ event: 'GUEST_CREATED', data: { guest: guest.id, name, actor } });
  return { guest, record, status, starting };
};

/** As of a guest that is about to be started, and whose process is the start's own. Pure. */
const statusOf = (
  { reason: _waiting, process, applied, ...rest }: GuestStatus,
  { id }: Pick<OperationRecord, 'id'>,
  now: number,
): GuestStatus => ({
  ...rest,
  state: 'stopped',
  observedAt: now,
  ...(process === undefined ? {} : { process: { ...process, startedAt: now } }),
  ...(applied === undefined ? {} : { applied: { ...applied, launchedBy: id } }),
});

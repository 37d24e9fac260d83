/** A guest's life, from its operations and events: pure. */
import type { HistoryEntry } from '../../protocol/history.ts';
import type { KeptEvent } from '../inventory/event-table.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';

/** Events that tell what no operation tells. */
const TOLD_EVENTS = [
  'GUEST_UPDATED',
  'GUEST_EXITED',
  'GUEST_STATE_CHANGED',
  'GUEST_TARGET_CHANGED',
  'GUEST_RESTART_SCHEDULED',
] as const;

/** States that a guest comes to by itself; all others are told by the operation that brings them. */
const OWN_STATES: ReadonlySet<unknown> = new Set(['paused', 'unresponsive', 'failed', 'unknown']);

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

/** A list of words out of an event's data. */
const listed = (value: unknown): string | undefined =>
  Array.isArray(value) ? value.filter((each) => typeof each === 'string').join(', ') : undefined;

const withDetail = (detail: string | undefined): { detail?: string } =>
  detail === undefined || detail === '' ? {} : { detail };

/** What users asked for besides the guest itself, as `force, timeoutMs 5000`. */
const asked = ({ arguments: args, kind }: OperationRecord): string | undefined => {
  if (kind === 'guest-create' || kind === 'guest-update') return undefined;
  if (kind === 'guest-clone') return `of ${text(args['guest']) ?? '?'}`;
  const words = Object.entries(args)
    .filter(([name, value]) => name !== 'guest' && name !== 'idempotencyKey' && value !== false)
    .map(([name, value]) => (value === true ? name : `${name} ${JSON.stringify(value)}`));
  return words.length === 0 ? undefined : words.join(', ');
};

const ofOperation = (operation: OperationRecord): HistoryEntry => {
  const gaveUpOn = listed(operation.result?.['gaveUpOn']);
  const outcome = gaveUpOn === undefined ? operation.error?.desc : `gave up on ${gaveUpOn}`;
  return {
    at: operation.createdAt,
    what: operation.kind,
    state: operation.state,
    actor: operation.actor,
    operation: operation.id,
    ...(operation.endedAt === undefined ? {} : { endedAt: operation.endedAt }),
    ...withDetail([asked(operation), outcome].filter((part) => part !== undefined).join(': ')),
  };
};

const ofEvent = ({ event, atMs, data }: KeptEvent): HistoryEntry | undefined => {
  const base = { at: Math.floor(atMs), what: event } as const;
  switch (event) {
    case 'GUEST_UPDATED': {
      const changed = data['changed'];
      return {
        ...base,
        actor: text(data['actor']) ?? 'daemon',
        ...withDetail(listed(changed)),
      };
    }
    case 'GUEST_EXITED': {
      const parts = [text(data['cause']), text(data['detail'])];
      return { ...base, ...withDetail(parts.filter((part) => part !== undefined).join(': ')) };
    }
    case 'GUEST_STATE_CHANGED': {
      const [from, to, reason] = [text(data['from']), text(data['to']), text(data['reason'])];
      if (!OWN_STATES.has(to) && from !== 'unresponsive') return undefined;
      return { ...base, detail: `${from} to ${to}${reason === undefined ? '' : `: ${reason}`}` };
    }
    case 'GUEST_TARGET_CHANGED':
      // What users ask for, their operations tell.
      return data['actor'] === 'guest'
        ? { ...base, actor: 'guest', ...withDetail(text(data['target'])) }
        : undefined;
    case 'GUEST_RESTART_SCHEDULED':
      return {
        ...base,
        actor: 'policy:restart',
        detail: `attempt ${JSON.stringify(data['attempt'])} in ${JSON.stringify(data['delayMs'])} ms`,
      };
    default:
      return undefined;
  }
};

/** In the order in which it happened; an update is told once, by its event, which knows what changed. */
export const historyOf = (
  operations: readonly OperationRecord[],
  events: readonly KeptEvent[],
): readonly HistoryEntry[] =>
  [
    ...operations.filter(({ kind }) => kind !== 'guest-update').map(ofOperation),
    ...events.flatMap((event) => ofEvent(event) ?? []),
  ].sort((a, b) => a.at - b.at);

export const historyEvents: readonly string[] = TOLD_EVENTS;

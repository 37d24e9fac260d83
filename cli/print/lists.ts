/** Networks, pools, operations, tokens and events for people. */
import type { CommandReturn } from '../../protocol/commands.ts';
import type { EventView } from '../../protocol/events.ts';
import type { PoolView } from '../../protocol/host.ts';
import type { NetworkView } from '../../protocol/network.ts';
import type { OperationView } from '../../protocol/operation.ts';
import { formatAge, formatDuration, formatSize } from '../units.ts';
import { renderFields, renderTable, safe } from './table.ts';

export const usersText = ({ length }: readonly unknown[]): string | undefined =>
  length === 0 ? undefined : `${length} ${length === 1 ? 'guest' : 'guests'}`;

/** `*.lan`, with the server to ask where the host's own resolver does not know it: `dig @10.91.1.1 web1.lan`. */
const namesText = ({ names }: NetworkView): string | undefined =>
  names && (names.onHost ? `*.${names.domain}` : `*.${names.domain} @${names.server}`);

export const printNetworks = (networks: readonly NetworkView[]): string[] =>
  renderTable(
    ['name', 'kind', 'state', 'subnet', 'gateway', 'bridge', 'names', 'used by'],
    networks.map((network) => [
      network.name,
      network.kind,
      network.reason === undefined ? network.state : `${network.state} (${network.reason})`,
      network.subnet,
      network.gateway,
      network.bridge,
      namesText(network),
      usersText(network.usedBy),
    ]),
  );

export const printPools = (pools: readonly PoolView[]): string[] =>
  renderTable(
    ['name', 'kind', 'size', 'free', 'path'],
    pools.map((pool) => [
      pool.name,
      pool.kind,
      formatSize(pool.totalBytes),
      formatSize(pool.freeBytes),
      pool.path,
    ]),
  );

export const progressText = (operation: OperationView): string | undefined => {
  const { progress, position, steps, waitsFor, waitingFor } = operation;
  if (operation.state === 'queued' && position !== undefined) {
    const why = waitingFor ?? (waitsFor === undefined ? undefined : `operation ${waitsFor}`);
    return `place ${position} in the queue${why === undefined ? '' : `, waits for ${why}`}`;
  }
  if (progress) {
    const show = (count: number): string => (progress.unit === 'bytes' ? formatSize(count) : String(count));
    const total = progress.total === undefined ? '' : ` of ${show(progress.total)}`;
    const { ratePerSecond } = progress;
    const rate = ratePerSecond === undefined ? undefined : `${show(ratePerSecond)}/s`;
    const done = progress.unit === 'percent' ? `${progress.done} %` : `${show(progress.done)}${total}`;
    return [done, rate, progress.message].filter(Boolean).join(', ');
  }
  return steps.find((step) => step.state === 'running')?.name;
};

const tookText = ({
  startedAt,
  endedAt,
}: Pick<OperationView, 'startedAt' | 'endedAt'>): string | undefined =>
  startedAt === undefined || endedAt === undefined ? undefined : formatDuration(endedAt - startedAt);

export const printOperations = (operations: readonly OperationView[], nowMs: number): string[] =>
  renderTable(
    ['id', 'kind', 'subject', 'state', 'created', 'took', 'detail'],
    operations.map((operation) => [
      operation.id,
      operation.kind,
      operation.subject.name,
      operation.cancelRequested && operation.endedAt === undefined
        ? `${operation.state}, to end`
        : operation.state,
      formatAge(operation.createdAt, nowMs),
      tookText(operation),
      operation.error?.desc ?? progressText(operation),
    ]),
  );

export const printOperation = (operation: OperationView, nowMs: number): string[] => [
  ...renderFields([
    ['Id', operation.id],
    ['Kind', operation.kind],
    ['Subject', `${operation.subject.kind} ${operation.subject.name}`],
    ['State', operation.state],
    ['Cancelled', operation.cancelRequested ? 'asked for' : undefined],
    ['By', operation.actor],
    ['Created', formatAge(operation.createdAt, nowMs)],
    ['Took', tookText(operation)],
    ['Waits for', operation.waitsFor],
    ['Progress', progressText(operation)],
    ['Error', operation.error?.desc],
    ['Hint', operation.error?.hint],
  ]),
  ...(operation.steps.length === 0
    ? []
    : [
        'Steps:',
        ...renderTable(
          ['step', 'state', 'took'],
          operation.steps.map((step) => [step.name, step.state, tookText(step)]),
        ).map((line) => `  ${line}`),
      ]),
];

export const printTokens = (tokens: CommandReturn<'query-tokens'>['tokens'], nowMs: number): string[] =>
  renderTable(
    ['name', 'role', 'created', 'last used'],
    tokens.map((token) => [
      token.name,
      token.role,
      formatAge(token.createdAt, nowMs),
      token.lastUsedAt === undefined ? 'never' : formatAge(token.lastUsedAt, nowMs),
    ]),
  );

/** Members that are shown by the event's subject already, or say nothing to a person. */
const subjectMembers = new Set(['name', 'guest', 'image', 'network', 'operation', 'subject']);

const eventSubject = ({ data }: EventView): string => {
  const subject = data['name'] ?? data['subject'] ?? '';
  return typeof subject === 'string' ? subject : JSON.stringify(subject);
};

/** `SEQUENCE TIME EVENT SUBJECT member=value …` on one line. */
export const printEvent = (event: EventView): string => {
  const { seconds, microseconds } = event.timestamp;
  const time = new Date(seconds * 1000 + Math.floor(microseconds / 1000)).toISOString();
  const details = Object.entries(event.data)
    .filter(([key]) => !subjectMembers.has(key))
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  return safe([String(event.sequence), time, event.event, eventSubject(event), ...details].join('  '));
};

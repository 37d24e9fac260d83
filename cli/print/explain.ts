/** An operation's journal and a guest's life, in plain words. */
import type { CommandReturn } from '../../protocol/commands.ts';
import type { HistoryEntry } from '../../protocol/history.ts';
import { formatDuration } from '../units.ts';
import { quoted } from './quoted.ts';
import { renderTable, safe } from './table.ts';

type Journal = CommandReturn<'query-operation'>;
type JournalStep = Journal['steps'][number];
type Entry = NonNullable<JournalStep['account']>[number];

const time = (atMs: number): string => new Date(atMs).toISOString().replace('T', ' ');

const commandLine = (argv: readonly string[]): string => argv.map(quoted).join(' ');

const entryText = (entry: Entry): string => {
  switch (entry.kind) {
    case 'tool':
      return `ran ${commandLine(entry.argv)} (${entry.ms} ms)${entry.error === undefined ? '' : `: ${entry.error}`}`;
    case 'monitor': {
      const args = entry.arguments === undefined ? '' : ` ${entry.arguments}`;
      const end = entry.error === undefined ? '' : `: ${entry.error}`;
      return `told ${entry.program ?? 'the monitor'} ${entry.command}${args} (${entry.ms} ms)${end}`;
    }
    case 'process':
      return `started process ${entry.pid}: ${commandLine(entry.argv)}`;
    case 'made':
      return `made ${entry.object}`;
    case 'removed':
      return `removed ${entry.object}`;
    case 'note':
      return entry.text;
  }
};

const stepWords: Readonly<Record<JournalStep['state'], string>> = {
  pending: 'not begun',
  running: 'under way',
  done: 'done',
  failed: 'failed',
  undone: 'undone',
  'undo-failed': 'could not be undone',
};

const stepLines = (step: JournalStep, index: number): string[] => {
  const took =
    step.startedAt === undefined || step.endedAt === undefined
      ? ''
      : `, ${formatDuration(step.endedAt - step.startedAt)}`;
  return [
    `${index + 1}. ${step.name}: ${stepWords[step.state]}${took}`,
    ...(step.error === undefined ? [] : [`     because: ${step.error}`]),
    ...(step.account ?? []).map((entry) => `     ${entryText(entry)}`),
  ].map(safe);
};

const outcome = (operation: Journal, nowMs: number): string => {
  const { startedAt, endedAt, state, position, waitingFor } = operation;
  if (state === 'queued')
    return `It waits for its turn${position === undefined ? '' : `, in place ${position}`}${waitingFor === undefined ? '' : `, for ${waitingFor}`}.`;
  const took = startedAt === undefined ? undefined : formatDuration((endedAt ?? nowMs) - startedAt);
  if (endedAt === undefined) return `It is ${state}${took === undefined ? '' : `, for ${took} now`}.`;
  return `It ${state === 'succeeded' ? 'succeeded' : state === 'failed' ? 'failed' : 'was cancelled'}${took === undefined ? '' : ` after ${took}`}.`;
};

const words = (value: unknown): readonly string[] =>
  Array.isArray(value) ? value.filter((each) => typeof each === 'string') : [];

export const printJournal = (operation: Journal, nowMs: number): string[] => {
  const { subject, createdAt, startedAt, error, result } = operation;
  const gaveUpOn = result?.['gaveUpOn'];
  const undoFailures = error?.data?.['undoFailures'];
  return [
    ...[
      `${operation.kind} of ${subject.kind} ${subject.name}, asked for by ${operation.actor} at ${time(createdAt)}.`,
      ...(startedAt === undefined
        ? []
        : [`It waited ${formatDuration(startedAt - createdAt)} for its turn.`]),
      outcome(operation, nowMs),
      ...(error === undefined ? [] : [`Error: ${error.desc}`]),
      ...(error?.hint === undefined ? [] : [`Hint: ${error.hint}`]),
      ...words(undoFailures).map((text) => `Not undone: ${text}`),
      ...words(gaveUpOn).map((text) => `Gave up on: ${text}`),
    ].map(safe),
    ...operation.steps.flatMap(stepLines),
  ];
};

const eventWords: Readonly<Record<string, string>> = {
  GUEST_UPDATED: 'updated',
  GUEST_EXITED: 'process ended',
  GUEST_STATE_CHANGED: 'state changed',
  GUEST_TARGET_CHANGED: 'target changed',
  GUEST_RESTART_SCHEDULED: 'restart scheduled',
};

const whatText = ({ what, state }: HistoryEntry): string => {
  const words = eventWords[what] ?? what.replace(/^guest-/, '');
  return state === undefined || state === 'succeeded' ? words : `${words} (${state})`;
};

export const printHistory = (entries: readonly HistoryEntry[]): string[] =>
  renderTable(
    ['time', 'what', 'by', 'took', 'detail', 'operation'],
    entries.map((entry) => [
      time(entry.at),
      whatText(entry),
      entry.actor,
      entry.endedAt === undefined ? undefined : formatDuration(entry.endedAt - entry.at),
      entry.detail,
      entry.operation,
    ]),
  );

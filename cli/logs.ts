/** `roost logs`: a guest's logs by parts, and their growth. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandInput, CommandReturn } from '../protocol/commands.ts';
import { usageFailure } from './failure.ts';
import type { Context } from './io.ts';
import { lastingCall } from './lasting.ts';
import type { Invocation } from './verb.ts';

/** Most that one reply carries, by the contract. */
const MAX_PART_BYTES = 65_536;
const DEFAULT_BYTES = 32_768;
/** A log is a file that the guest's process writes: nothing tells of its growth, so it is looked at. */
const FOLLOW_INTERVAL_MS = 500;

type Part = CommandReturn<'query-guest-log'>;
type Stream = NonNullable<CommandInput<'query-guest-log'>['stream']>;

/** Undefined for the one that the guest has for it. */
const streamOf = ({ flags }: Invocation): Stream | undefined => {
  const named = (['console', 'process', 'events'] as const).filter((name) => flags[name] === true);
  if (named.length > 1) throw usageFailure(`--${named.join(' and --')} exclude each other`);
  return named[0];
};

type ReadPart = (range: { offset?: number; maxBytes?: number }) => Promise<Part>;

/** The end of the log; longer than one reply, it is read in parts. */
const readEnd = async (read: ReadPart, bytes: number, show: (part: Part) => void): Promise<number> => {
  const last = await read({ maxBytes: Math.max(1, Math.min(bytes, MAX_PART_BYTES)) });
  if (bytes <= MAX_PART_BYTES || last.offset === 0) {
    if (bytes > 0) show(last);
    return last.nextOffset;
  }
  let offset = Math.max(0, last.sizeBytes - bytes);
  while (offset < last.sizeBytes) {
    const part = await read({ offset, maxBytes: MAX_PART_BYTES });
    show(part);
    if (part.nextOffset <= offset) break;
    offset = part.nextOffset;
  }
  return offset;
};

/** Shows what comes until the signal ends it. A log that became shorter was rotated and starts afresh. */
const followLog = async (
  read: ReadPart,
  from: number,
  show: (part: Part) => void,
  signal: AbortSignal,
): Promise<never> => {
  let offset = from;
  for (;;) {
    const part = await read({ offset, maxBytes: MAX_PART_BYTES });
    if (part.sizeBytes < offset) offset = 0;
    else {
      show(part);
      const more = part.nextOffset > offset && part.nextOffset < part.sizeBytes;
      offset = Math.max(offset, part.nextOffset);
      if (more) continue;
    }
    await delay(FOLLOW_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
  }
};

export const showLog = async (invocation: Invocation, context: Context): Promise<number> => {
  const { io, json, printJson, signal } = context;
  const guest = String(invocation.positionals['NAME']);
  const stream = streamOf(invocation);
  const bytes = Number(invocation.flags['bytes'] ?? DEFAULT_BYTES);
  const read: ReadPart = async (range) =>
    (await lastingCall(context, 'query-guest-log', () => ({
      guest,
      ...(stream === undefined ? {} : { stream }),
      ...range,
    }))) as Part;
  if (json) {
    if (invocation.flags['follow'] === true) throw usageFailure('--follow has no form in JSON');
    printJson(await read({ maxBytes: Math.max(1, Math.min(bytes, MAX_PART_BYTES)) }));
    return 0;
  }
  const show = (part: Part): void => {
    if (part.text !== '') io.stdout.write(part.text);
  };
  const offset = await readEnd(read, bytes, show);
  return invocation.flags['follow'] === true ? followLog(read, offset, show, signal) : 0;
};

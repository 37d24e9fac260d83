/**
 * Reads QEMU's own event log: the output of a monitor that was negotiated from a file and whose other end is
 * a file opened for append. It holds every event with its time, also those of the hours when nobody was
 * connected. One message a line; greeting and replies are skipped, so is anything unreadable.
 */
import { open } from 'node:fs/promises';
import { type QmpEvent, qmpEventSchema } from './qmp-types.ts';

const LINE_FEED = 0x0a;

/** How much one read takes from the log unless told otherwise. */
export const DEFAULT_BLACK_BOX_READ_BYTES = 256 * 1024;

export interface BlackBoxPart {
  readonly events: readonly QmpEvent[];
  /** Bytes that need not be read again. */
  readonly consumed: number;
}

/** The events in a piece of the log that starts at a line. An unfinished last line stays unconsumed. */
export function parseBlackBox(chunk: Buffer): BlackBoxPart {
  const events: QmpEvent[] = [];
  let start = 0;
  for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
    addEvent(events, parseLine(chunk.subarray(start, end)));
    start = end + 1;
  }
  // A message whose line end never came (QEMU died just then) is complete all the same.
  const last = parseLine(chunk.subarray(start));
  addEvent(events, last);
  return { events, consumed: last === undefined ? start : chunk.length };
}

export interface BlackBoxReadOptions {
  /** Bound of one read, in bytes. A single message longer than this is skipped. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
}

export interface BlackBoxRead {
  readonly events: readonly QmpEvent[];
  /** Where to go on; the log is read to its end when this no longer advances. */
  readonly nextOffset: number;
  /** Size of the log when it was read, in bytes. */
  readonly size: number;
}

/**
 * Reads the log on from `offset`, at most `maxBytes` at a time. A log that became shorter than `offset` was
 * truncated and is read from its start. Fails as opening the file does (`ENOENT`: no log was ever begun).
 */
export async function readBlackBox(
  path: string,
  offset: number,
  options: BlackBoxReadOptions = {},
): Promise<BlackBoxRead> {
  const maxBytes = options.maxBytes ?? DEFAULT_BLACK_BOX_READ_BYTES;
  options.signal?.throwIfAborted();
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const from = size < offset ? 0 : offset;
    const buffer = Buffer.alloc(Math.min(maxBytes, size - from));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, from);
    const { events, consumed } = parseBlackBox(buffer.subarray(0, bytesRead));
    const isStuck = consumed === 0 && bytesRead === maxBytes;
    return { events, nextOffset: from + (isStuck ? bytesRead : consumed), size };
  } finally {
    await file.close();
  }
}

/** The JSON object on a line; `undefined` where there is none. */
function parseLine(line: Buffer): object | undefined {
  try {
    const value: unknown = JSON.parse(line.toString('utf8'));
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function addEvent(events: QmpEvent[], message: object | undefined): void {
  if (message === undefined || !('event' in message)) return;
  const parsed = qmpEventSchema.safeParse(message);
  if (parsed.success) events.push(parsed.data);
}

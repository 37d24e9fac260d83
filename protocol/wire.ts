/**
 * The envelope: QMP's own (QEMU, docs/interop/qmp-spec.rst), so that an unmodified QMP client connects. Pure: values
 * in, values out. The byte stream is split into values elsewhere.
 */
import { z } from 'zod';
import { RoostError, type WireError } from './errors.ts';
import type { EventView } from './events.ts';
import { packageText, version } from './version.ts';

/** A longer value, in bytes, is refused without being kept. */
export const MAX_VALUE_BYTES = 1024 * 1024;
/** A value that is not complete this long after its first byte is refused. */
export const VALUE_TIMEOUT_MS = 30_000;
/** Pages of clients that name no size stay under this, for clients that read by lines of 64 KiB. */
export const DEFAULT_PAGE_BYTES = 60 * 1024;

export type WireId = z.infer<ReturnType<typeof z.json>>;

const requestSchema = z.strictObject({
  execute: z.string().max(128),
  arguments: z.record(z.string(), z.unknown()).optional(),
  id: z.json().optional(),
});

export interface Request {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly id: WireId | undefined;
}

export const greeting = {
  QMP: { version: { qemu: version, package: packageText }, capabilities: [] },
} as const;

/** Issues of a failed validation in words, with their paths. */
export const issuesOf = (error: z.ZodError): { path: string; message: string }[] =>
  error.issues.map((issue) => ({ path: issue.path.join('.'), message: issue.message }));

/** As it was sent: a parsed copy would lack a member called __proto__. */
const idOf = (value: unknown): WireId | undefined => {
  if (typeof value !== 'object' || value === null || !('id' in value)) return undefined;
  return z.json().safeParse(value.id).success ? (value.id as WireId) : undefined;
};

/** As they were sent, so that whoever checks them sees every member. */
const argumentsOf = (value: unknown): Request['arguments'] =>
  ((value as { arguments?: unknown }).arguments ?? {}) as Request['arguments'];

export type ParsedRequest =
  | { readonly kind: 'request'; readonly request: Request }
  | { readonly kind: 'refused'; readonly error: RoostError; readonly id: WireId | undefined };

/** A JSON value as a request; unknown members are refused, as QMP does. */
export const parseRequest = (value: unknown): ParsedRequest => {
  const parsed = requestSchema.safeParse(value);
  if (parsed.success) {
    const { execute } = parsed.data;
    return { kind: 'request', request: { execute, arguments: argumentsOf(value), id: idOf(value) } };
  }
  const issues = issuesOf(parsed.error);
  const first = issues[0];
  const where = first?.path ? `'${first.path}': ` : '';
  return {
    kind: 'refused',
    id: idOf(value),
    error: new RoostError('InvalidArgument', `Not a QMP request: ${where}${first?.message ?? 'wrong form'}`, {
      data: { issues },
      hint: 'Send {"execute": NAME, "arguments": {…}, "id": ANY}.',
    }),
  };
};

const withId = (id: WireId | undefined): { id?: WireId } => (id === undefined ? {} : { id });

export const successReply = (result: unknown, id: WireId | undefined): object => ({
  return: result,
  ...withId(id),
});
export const errorReply = (error: WireError, id: WireId | undefined): object => ({ error, ...withId(id) });

export const eventMessage = (event: EventView): object => ({
  event: event.event,
  data: event.data,
  timestamp: event.timestamp,
  sequence: event.sequence,
});

/** QMP's time stamp of a moment in milliseconds since the epoch. */
export const wireTimestamp = (atMs: number): EventView['timestamp'] => {
  const microseconds = Math.round(atMs * 1000);
  return { seconds: Math.floor(microseconds / 1e6), microseconds: microseconds % 1e6 };
};

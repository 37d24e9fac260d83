/**
 * The messages of the QEMU Machine Protocol (docs/interop/qmp-spec), as QEMU sends them. Unknown members are
 * ignored, as the specification demands of clients. Member names are QMP's own.
 */
import { z } from 'zod';

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export const qmpVersionSchema = z.object({
  qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }),
  package: z.string(),
});

/** The first message of a session. */
export const qmpGreetingSchema = z.object({
  QMP: z.object({ version: qmpVersionSchema, capabilities: z.array(z.string()) }),
});

export interface QmpGreeting {
  readonly version: { readonly qemu: QemuVersion; readonly package: string };
  readonly capabilities: readonly string[];
}

/** Host clock when the event was sent; seconds is -1 where QEMU could not read it. */
export interface QmpTimestamp {
  readonly seconds: number;
  readonly microseconds: number;
}

export interface QmpEvent {
  readonly event: string;
  /** Empty where QEMU sent none. */
  readonly data: Readonly<Record<string, unknown>>;
  readonly timestamp: QmpTimestamp;
}

export const qmpEventSchema: z.ZodType<QmpEvent> = z.object({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).default({}),
  timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
});

export const qmpErrorSchema = z.object({ class: z.string(), desc: z.string() });

/** What an error reply says. Only `class` may be decided on; `desc` is for people. */
export interface QmpErrorReply {
  readonly class: string;
  readonly desc: string;
}

/** How a session ended, by the first thing that ended it; `eof` also stands for a reset: QEMU is gone. */
export type QmpEnd =
  | { readonly reason: 'closed' }
  | { readonly reason: 'eof' }
  | { readonly reason: 'protocol-error'; readonly error: Error }
  | { readonly reason: 'socket-error'; readonly error: Error };

/**
 * Something the other side (or, for `listener-threw`, our own) must not do and that the session survives.
 * `error-without-id` is QEMU's answer to input it could not read at all.
 */
export type QmpViolationKind =
  | 'unknown-id'
  | 'reply-without-id'
  | 'error-without-id'
  | 'bad-event'
  | 'unknown-message'
  | 'listener-threw';

export interface QmpViolation {
  readonly kind: QmpViolationKind;
  /** The message as received. */
  readonly value: unknown;
  readonly error?: Error;
}

/**
 * Events: numbered, kept on disk and resumable by sequence. On the wire an event is QMP's
 * `{"event", "data", "timestamp"}` with `sequence` besides.
 */
import { z } from 'zod';
import { agentState, fsfreezeStatus } from './agent.ts';
import { guestState, guestTarget } from './guest.ts';
import { readiness } from './guest-address.ts';
import { operationState } from './operation.ts';
import { actor, deviceName, guestId, imageId, networkId, operationId } from './types.ts';

const guest = { guest: guestId, name: z.string() };

/** Payload of every event, by its name. `lifecycle` events go to every client that negotiated capabilities. */
export const events = {
  GUEST_CREATED: { lifecycle: true, data: z.strictObject({ ...guest, actor }) },
  GUEST_UPDATED: { lifecycle: true, data: z.strictObject({ ...guest, actor, changed: z.array(z.string()) }) },
  GUEST_DELETED: { lifecycle: true, data: z.strictObject({ ...guest, actor }) },
  GUEST_STATE_CHANGED: {
    lifecycle: true,
    data: z.strictObject({ ...guest, from: guestState, to: guestState, reason: z.string().optional() }),
  },
  GUEST_READY: {
    lifecycle: true,
    data: z.strictObject({ ...guest, kind: readiness.shape.kind, address: z.string().optional() }),
  },
  GUEST_TARGET_CHANGED: { lifecycle: true, data: z.strictObject({ ...guest, target: guestTarget, actor }) },
  GUEST_EXITED: {
    lifecycle: true,
    data: z.strictObject({
      ...guest,
      cause: z.string().describe('guest-shutdown · guest-reset · asked · killed · crashed · unknown'),
      detail: z.string().optional(),
      exitCode: z
        .int()
        .optional()
        .describe('Of its main program, or of the init of a container, where it ended by itself'),
      signal: z.int().optional().describe('Number of the signal that ended it'),
    }),
  },
  GUEST_RESTART_SCHEDULED: {
    lifecycle: true,
    data: z.strictObject({ ...guest, delayMs: z.int(), attempt: z.int() }),
  },
  GUEST_FILESYSTEM_LOST: {
    lifecycle: true,
    data: z.strictObject({
      ...guest,
      filesystem: deviceName.describe('What serves it has ended while the guest runs'),
      source: z.string(),
      target: z.string(),
    }),
  },
  GUEST_AGENT_CHANGED: {
    lifecycle: false,
    data: z.strictObject({
      ...guest,
      state: agentState,
      version: z.string().optional().describe('By its own word, once it has told it'),
    }),
  },
  GUEST_FSFREEZE_CHANGED: {
    lifecycle: false,
    data: z.strictObject({
      ...guest,
      status: fsfreezeStatus,
      thawAt: z.int().optional().describe('When it is thawed at the latest, in milliseconds since the epoch'),
      why: z
        .enum(['asked', 'deadline', 'undone', 'stop', 'pause', 'reset', 'guest'])
        .optional()
        .describe('Why it is thawed; guest: its agent says that it is'),
      error: z.string().optional().describe('Why it could not be thawed; it is tried again'),
    }),
  },
  GUEST_DRIVER_EVENT: {
    lifecycle: false,
    data: z.strictObject({
      ...guest,
      event: z.string().describe("The driver's own name of it, as QEMU's RESET"),
      data: z.record(z.string(), z.json()),
    }),
  },
  OPERATION_CHANGED: {
    lifecycle: false,
    data: z.strictObject({
      operation: operationId,
      kind: z.string(),
      subject: z.string(),
      state: operationState,
      step: z.string().optional(),
    }),
  },
  IMAGE_CHANGED: {
    lifecycle: false,
    data: z.strictObject({
      image: imageId,
      name: z.string(),
      version: z.string(),
      change: z.enum(['imported', 'deleted', 'alias-set', 'alias-deleted']),
      alias: z.string().optional(),
    }),
  },
  NETWORK_CHANGED: {
    lifecycle: false,
    data: z.strictObject({
      network: networkId,
      name: z.string(),
      change: z.enum(['created', 'deleted', 'failed']),
    }),
  },
  EVENTS_LOST: {
    lifecycle: true,
    data: z.strictObject({
      from: z.int().describe('First sequence that is no longer kept'),
      to: z.int().describe('Last sequence that is no longer kept'),
    }),
  },
} as const;

export type EventName = keyof typeof events;
export type EventData<N extends EventName> = z.infer<(typeof events)[N]['data']>;
export const eventNames = Object.keys(events) as [EventName, ...EventName[]];
export const eventName = z.enum(eventNames);

export const eventView = z.strictObject({
  sequence: z.int().positive(),
  event: eventName,
  data: z.record(z.string(), z.json()),
  timestamp: z.strictObject({ seconds: z.int(), microseconds: z.int() }),
});
export type EventView = Readonly<z.infer<typeof eventView>>;

/** One event with its payload typed by its name, before it has a sequence. */
export type RoostEvent = {
  readonly [N in EventName]: { readonly event: N; readonly data: EventData<N> };
}[EventName];

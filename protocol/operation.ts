/**
 * Operations: journaled work with steps, visible while it waits, while it runs and afterwards. A changing command
 * is answered as soon as its operation is accepted and durable; `operation-wait` waits for the end.
 */
import { z } from 'zod';
import { wireError } from './errors.ts';
import { actor, idempotencyKey, millisecondsSinceEpoch, operationId } from './types.ts';

export const operationStates = {
  queued: 'Accepted and durable; waits for its turn',
  running: 'Its steps are being done',
  undoing: 'A step failed or the operation was cancelled; the steps done are being undone',
  succeeded: 'Ended well',
  failed: 'Ended with an error; what was done has been undone',
  cancelled: 'Somebody cancelled it; what was done has been undone',
} as const;
export type OperationState = keyof typeof operationStates;
export const operationState = z.enum(Object.keys(operationStates) as [OperationState, ...OperationState[]]);

export const isEnded = (state: OperationState): boolean =>
  state === 'succeeded' || state === 'failed' || state === 'cancelled';

export const stepState = z.enum(['pending', 'running', 'done', 'failed', 'undone', 'undo-failed']);
export type StepState = z.infer<typeof stepState>;

/** What an operation can be about. `host` is this daemon's host as a whole. */
export const subjectKinds = ['guest', 'image', 'network', 'host'] as const;
export type SubjectKind = (typeof subjectKinds)[number];

export const operationView = z.strictObject({
  id: operationId,
  kind: z.string().describe('The command that asked for it'),
  subject: z
    .strictObject({ kind: z.enum(subjectKinds), id: z.string(), name: z.string() })
    .describe('What it works on'),
  actor,
  state: operationState,
  position: z.int().optional().describe('Place in the queue, 1 is next'),
  waitsFor: operationId.optional().describe('The operation it waits for'),
  waitingFor: z.string().optional().describe('What it waits for, in words, where it is no single operation'),
  progress: z
    .strictObject({
      done: z.int(),
      total: z.int().optional(),
      unit: z.enum(['bytes', 'steps', 'percent']),
      ratePerSecond: z.int().optional().describe('Of the unit, lately'),
      message: z.string().optional(),
    })
    .optional(),
  steps: z.array(
    z.strictObject({
      name: z.string(),
      state: stepState,
      startedAt: millisecondsSinceEpoch.optional(),
      endedAt: millisecondsSinceEpoch.optional(),
    }),
  ),
  cancelRequested: z.boolean(),
  createdAt: millisecondsSinceEpoch,
  startedAt: millisecondsSinceEpoch.optional(),
  endedAt: millisecondsSinceEpoch.optional(),
  error: wireError.optional(),
  result: z.record(z.string(), z.json()).optional(),
});
export type OperationView = Readonly<z.infer<typeof operationView>>;

/** What a step did to the host, one thing each; bounded, the later ones are only counted. */
export const accountEntry = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('tool').describe('A program that was run to its end'),
    argv: z.array(z.string()),
    ms: z.number(),
    error: z.string().optional(),
  }),
  z.strictObject({
    kind: z.literal('monitor').describe("A command to the guest's monitor"),
    program: z.string().optional().describe('Whose monitor it is; absent in what an older daemon kept'),
    command: z.string(),
    arguments: z.string().optional().describe('As JSON'),
    ms: z.number(),
    error: z.string().optional(),
  }),
  z.strictObject({
    kind: z.literal('process').describe('A process that was left running'),
    argv: z.array(z.string()),
    pid: z.int(),
  }),
  z.strictObject({ kind: z.enum(['made', 'removed']), object: z.string() }),
  z.strictObject({ kind: z.literal('note'), text: z.string() }),
]);

/** An operation with what each of its steps did. */
export const operationJournal = z.strictObject({
  ...operationView.shape,
  arguments: z.record(z.string(), z.json()).describe('As they were asked for'),
  steps: z.array(
    z.strictObject({
      name: z.string(),
      state: stepState,
      startedAt: millisecondsSinceEpoch.optional(),
      endedAt: millisecondsSinceEpoch.optional(),
      account: z.array(accountEntry).optional().describe('What it did; its undoing at the end'),
      error: z.string().optional().describe('Why it, or its undoing, failed'),
    }),
  ),
});
export type OperationJournal = Readonly<z.infer<typeof operationJournal>>;

/** What every changing command answers: the operation, and the id of what it works on. */
export const accepted = z.strictObject({
  operation: operationId.describe('Wait for it with operation-wait'),
  id: z
    .string()
    .describe('Id of the guest, image or network concerned; of the instance for the host as a whole'),
});
export type Accepted = z.infer<typeof accepted>;

/** Members that every changing command takes besides its own. */
export const changing = { idempotencyKey: idempotencyKey.optional() };

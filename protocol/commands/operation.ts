/** Commands on operations. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { operationJournal, operationState, operationView } from '../operation.ts';
import { durationMs, operationId, page } from '../types.ts';

const since = '0.1.0';

export const queryOperations = defineCommand({
  name: 'query-operations',
  summary: 'List operations, newest first',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({
    ids: z.array(operationId).max(1000).optional(),
    subject: z.string().max(63).optional().describe('Name or id of what they work on'),
    states: z.array(operationState).optional(),
    ...page,
  }),
  returns: z.strictObject({ operations: z.array(operationView), next: z.string().optional() }),
});

export const queryOperation = defineCommand({
  name: 'query-operation',
  summary: 'Show one operation with what each of its steps did',
  description:
    'Tools with their command lines, monitor commands, and the host objects made and removed, as far as they were kept; also of an operation that is under way.',
  role: 'read',
  nature: 'query',
  since: '0.2.0',
  arguments: z.strictObject({ operation: operationId }),
  returns: operationJournal,
});

export const operationCancel = defineCommand({
  name: 'operation-cancel',
  summary: 'Ask an operation to end early',
  description:
    'A queued operation ends at once. A running one undoes what it did; it may also succeed before the request reaches it. Refused with FailedPrecondition once it has ended.',
  role: 'operate',
  nature: 'query',
  since,
  arguments: z.strictObject({ operation: operationId }),
  returns: operationView,
});

export const operationWait = defineCommand({
  name: 'operation-wait',
  summary: 'Wait until an operation has ended',
  description:
    'Returns the operation as it ended, whether well or not: look at its state. With timeoutMs it fails with DeadlineExceeded; the operation goes on.',
  role: 'read',
  nature: 'wait',
  since,
  arguments: z.strictObject({ operation: operationId, timeoutMs: durationMs.max(86_400_000).optional() }),
  returns: operationView,
});

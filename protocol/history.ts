/** A guest's life as told by the journal and the events that are kept. */
import { z } from 'zod';
import { operationState } from './operation.ts';
import { actor, guestId, millisecondsSinceEpoch, operationId } from './types.ts';

export const historyEntry = z.strictObject({
  at: millisecondsSinceEpoch,
  what: z.string().describe('The command that was asked for, as guest-start, or the event, as GUEST_EXITED'),
  state: operationState.optional().describe('How the operation stands or ended'),
  actor: actor.optional(),
  detail: z.string().optional().describe('What was asked for besides, what changed, why it ended, the error'),
  operation: operationId.optional().describe('query-operation tells all of it'),
  endedAt: millisecondsSinceEpoch.optional(),
});
export type HistoryEntry = Readonly<z.infer<typeof historyEntry>>;

export const guestHistory = z.strictObject({
  id: guestId,
  name: z.string(),
  deleted: z.boolean().describe('Whether it is gone from the inventory'),
  entries: z.array(historyEntry).describe('The oldest first, as far back as is kept'),
  next: z.string().optional(),
});

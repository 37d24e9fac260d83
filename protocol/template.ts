/** What is told of a guest because it is a template. */
import { z } from 'zod';
import { millisecondsSinceEpoch } from './types.ts';

export const templateView = z.strictObject({
  madeAt: millisecondsSinceEpoch,
  waiting: z
    .int()
    .nonnegative()
    .optional()
    .describe('Forks that were made ahead and wait for somebody who asks; they are not listed'),
});

/** The main program of a container image that a guest boots as a microVM, and what is told of it. */
import { z } from 'zod';
import { imageReference } from './types.ts';

/** A variable of an environment. */
const variable = z
  .string()
  .max(131_072)
  .regex(/^[^=\0]+=[^\0]*$/, 'must be NAME=VALUE');
const words = z
  .array(
    z
      .string()
      .max(131_072)
      .regex(/^[^\0]*$/, 'must not hold NUL'),
  )
  .max(4096);

export const programSpec = z.strictObject({
  image: imageReference.describe('Of kind oci; its files are what the guest boots into'),
  entrypoint: words.optional().describe("In place of the image's; then its cmd counts no more"),
  command: words.optional().describe("Arguments to the entrypoint, in place of the image's cmd"),
  environment: z.array(variable).max(4096).default([]).describe('NAME=VALUE, over those of the image'),
  workingDirectory: z.string().max(4096).startsWith('/', 'must be absolute').optional(),
  user: z.string().min(1).max(256).optional().describe('USER, UID, USER:GROUP …, as the image knows them'),
  terminal: z.boolean().default(false).describe('Give it a terminal, which is its input and its output'),
  interactive: z.boolean().default(false).describe('Keep its standard input open, for guest-attach'),
});

/** What a guest that boots a container image runs: told without its environment, which has secrets in it. */
export const programView = z.strictObject({
  image: z.string().describe('Id of the image'),
  argv: z.array(z.string()),
  workingDirectory: z.string().optional(),
  user: z.string().optional(),
  terminal: z.boolean().optional(),
  interactive: z.boolean().optional(),
  stopSignal: z.string().describe('What asks it to end, as SIGTERM'),
});

/** The forms of what a client says in a session of bytes; see byte-session.ts. */
import { z } from 'zod';
import type { SessionSignal, TerminalSize } from './byte-session.ts';

const cells = z.int().min(1).max(65_535);
export const terminalSize = z.strictObject({ rows: cells, columns: cells }) satisfies z.ZodType<TerminalSize>;
export const sessionSignal = z.strictObject({
  signal: z.int().min(1).max(64),
}) satisfies z.ZodType<SessionSignal>;

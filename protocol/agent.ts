/**
 * What the QEMU guest agent tells and does, in its own words (QEMU's qga/qapi-schema.json) as this contract writes
 * them. All of it is said by the guest: of the right form and bounded, and no more than that. Bytes travel as base64.
 */
import { z } from 'zod';
import { terminalSize } from './byte-session-forms.ts';

/** Bytes of a file in one read or write. */
export const MAX_FILE_CHUNK_BYTES = 65_536;
/** Bytes of standard input that a command in a guest can be given. */
export const MAX_EXEC_INPUT_BYTES = 262_144;

export const agentStates = {
  absent: 'Nobody in the guest has opened the channel: no agent runs, or there is no channel',
  connected: 'A program in the guest has the channel open',
  silent: 'It has the channel open, and did not answer when it was last asked',
} as const;
export type AgentState = keyof typeof agentStates;
export const agentState = z.enum(Object.keys(agentStates) as [AgentState, ...AgentState[]]);

export const agentInfo = z.strictObject({
  version: z.string(),
  supportedCommands: z.array(z.string()).describe('Commands that the agent knows and has enabled'),
});
export type AgentInfo = Readonly<z.infer<typeof agentInfo>>;

export const agentInterface = z.strictObject({
  name: z.string().describe("The guest's own name of it"),
  hardwareAddress: z.string().optional(),
  ipAddresses: z.array(
    z.strictObject({
      ipAddress: z.string(),
      ipAddressType: z.enum(['ipv4', 'ipv6']),
      prefix: z.int().min(0).max(128),
    }),
  ),
});
export type AgentInterface = Readonly<z.infer<typeof agentInterface>>;

const base64 = z.base64();

export const execRequest = z.strictObject({
  path: z
    .string()
    .min(1)
    .max(4096)
    .describe('Program; without a slash it is looked up in the PATH of the agent'),
  arg: z.array(z.string().max(65_536)).max(1024).default([]).describe('Its arguments, without its own name'),
  env: z
    .array(z.string().regex(/^[^=]+=/, 'must be NAME=value'))
    .max(256)
    .optional()
    .describe("Its whole environment, as NAME=value; the agent's own unless given"),
  inputData: base64
    .max(Math.ceil(MAX_EXEC_INPUT_BYTES / 3) * 4)
    .optional()
    .describe('Standard input, base64; empty unless given'),
  captureOutput: z.boolean().default(true).describe('Keep what it writes, for guest-exec-status'),
});
export type ExecRequest = Readonly<z.infer<typeof execRequest>>;

/** A program that is talked with while it runs; see byte-session.ts. */
export const programRequest = z.strictObject({
  path: execRequest.shape.path,
  arg: execRequest.shape.arg,
  env: execRequest.shape.env,
  workingDirectory: z
    .string()
    .max(4096)
    .startsWith('/', 'must be absolute')
    .optional()
    .describe('Where it starts; / unless given'),
  user: z
    .string()
    .min(1)
    .max(256)
    .optional()
    .describe("USER, UID, USER:GROUP …, as the guest knows them; the agent's own unless given"),
  terminal: terminalSize
    .optional()
    .describe('Gives it a terminal of this size; then it has no standard error of its own'),
  interactive: z.boolean().default(false).describe('Give it standard input; it is empty otherwise'),
});
export type ProgramRequest = Readonly<z.infer<typeof programRequest>>;

export const execStatus = z.strictObject({
  exited: z.boolean(),
  exitcode: z.int().optional().describe('Exit code, when it ended by itself'),
  signal: z.int().optional().describe('Number of the signal that ended it'),
  outData: base64.optional().describe('Standard output, base64; only once it has exited'),
  errData: base64.optional().describe('Standard error, base64; only once it has exited'),
  outTruncated: z.boolean().optional().describe('Standard output was longer than the agent keeps'),
  errTruncated: z.boolean().optional().describe('Standard error was longer than the agent keeps'),
});
export type ExecStatus = Readonly<z.infer<typeof execStatus>>;

/** A process in a guest, as the guest tells it. */
export const guestProcess = z.strictObject({
  pid: z.int().nonnegative(),
  parentPid: z.int().nonnegative(),
  uid: z.int().nonnegative().describe("The guest's number of its user"),
  state: z.string().max(1).describe('As ps(1) has it: R, S, D, T, Z …'),
  cpuTimeMs: z.int().nonnegative(),
  residentBytes: z.int().nonnegative(),
  command: z.string().describe('Its arguments; its name in brackets where it has none'),
});
export type GuestProcess = Readonly<z.infer<typeof guestProcess>>;

export const fsfreezeStatus = z.enum(['thawed', 'frozen']);
export type FsfreezeStatus = z.infer<typeof fsfreezeStatus>;

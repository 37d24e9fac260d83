/**
 * Commands that the agent in a guest carries out; names and meaning are those of the QEMU guest agent. Only freezing and
 * thawing are operations, because the daemon answers for their end; the others change nothing on the host, and what they
 * do in the guest only the guest knows.
 */
import { z } from 'zod';
import {
  agentInfo,
  agentInterface,
  execRequest,
  execStatus,
  fsfreezeStatus,
  guestProcess,
  MAX_FILE_CHUNK_BYTES,
  programRequest,
} from '../agent.ts';
import { defineCommand } from '../command.ts';
import { accepted, changing } from '../operation.ts';
import { durationMs, guestReference } from '../types.ts';

const since = '0.1.0';
const asked = {
  guest: guestReference,
  timeoutMs: durationMs
    .min(1)
    .max(600_000)
    .default(10_000)
    .describe('How long the agent may take for its answer; then Unavailable'),
};
const handle = z.int().nonnegative().describe('As guest-file-open gave it');
const wait = { nature: 'wait', since } as const;

export const guestInfo = defineCommand({
  name: 'guest-info',
  summary: "Ask a guest's agent for its version and commands",
  role: 'read',
  ...wait,
  arguments: z.strictObject(asked),
  returns: agentInfo,
});

export const guestNetworkGetInterfaces = defineCommand({
  name: 'guest-network-get-interfaces',
  summary: "Ask a guest's agent for its network interfaces and addresses",
  description: 'What the guest says of itself: evidence, and no proof.',
  role: 'read',
  ...wait,
  arguments: z.strictObject(asked),
  returns: z.strictObject({ interfaces: z.array(agentInterface) }),
});

export const guestExec = defineCommand({
  name: 'guest-exec',
  summary: 'Run a program in a guest by its agent',
  description:
    'Answers as soon as the program is started; guest-exec-status tells how it ends. It runs as the agent does, mostly as root, and goes on whatever becomes of this connection and of the daemon. After Unavailable it may have been started all the same.',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({ ...asked, ...execRequest.shape }),
  returns: z.strictObject({
    pid: z
      .int()
      .describe('Its process id in the guest, as query-guest-processes and programs in the guest know it'),
  }),
});

export const guestExecStatus = defineCommand({
  name: 'guest-exec-status',
  summary: 'Tell how a program in a guest is, or wait for its end',
  description:
    'The agent forgets a program once it was told to have exited: only one caller gets its output. Its answer may be 16 MiB long; with more output the end of the program is lost.',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({
    ...asked,
    pid: z.int().nonnegative(),
    waitMs: durationMs.max(86_400_000).default(0).describe('Answer when it has exited, or after this time'),
  }),
  returns: execStatus,
});

export const guestSignal = defineCommand({
  name: 'guest-signal',
  summary: "Send the main program of a guest's container image a signal",
  description: 'A guest ends with its main program.',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({
    ...asked,
    signal: z
      .union([z.int().min(1).max(64), z.string().regex(/^(SIG)?[A-Z][A-Z0-9]{1,9}$/)])
      .default('SIGKILL')
      .describe('By name or by the number that it has in Linux (signal(7))'),
  }),
  returns: z.strictObject({}),
});

export const queryGuestProcesses = defineCommand({
  name: 'query-guest-processes',
  summary: 'List the processes in a guest',
  description:
    'As the guest tells them, at most 4,096; those of its kernel are left out. Where no container image runs it needs ps(1) of procps in the guest, and an agent that may run it.',
  role: 'read',
  ...wait,
  arguments: z.strictObject(asked),
  returns: z.strictObject({ processes: z.array(guestProcess) }),
});

export const guestExecSession = defineCommand({
  name: 'guest-exec-session',
  summary: 'Run a program in a guest and talk with it over this connection',
  description:
    'After the reply the connection carries frames of channels and no more JSON (protocol/byte-session.ts): a byte with the number of the channel, four with the length of the payload, the most significant first, and the payload. Channels are 0 standard input (empty: its end), 1 standard output, 2 standard error, 3 the end (JSON: exitCode, signal or error; the last frame), 4 the size of the terminal (JSON: rows, columns), 5 a signal (JSON: signal). The program gets SIGHUP when the connection closes while it has a terminal; without one it runs on, with nobody who reads what it writes. Needs an agent that can do this, as that of guests with a container image. On a WebSocket binary messages carry the bytes.',
  role: 'operate',
  nature: 'session',
  since,
  arguments: z.strictObject({ ...asked, ...programRequest.shape }),
  returns: z.strictObject({ guest: z.string() }),
});

export const guestAttach = defineCommand({
  name: 'guest-attach',
  summary: "Attach this connection to the streams of a guest's main program",
  description:
    'After the reply the connection carries frames as that of guest-exec-session does. Several clients may be attached; each gets all that the program writes, and all write to its one input. An end of input closes it, unless it is a terminal. Closing the connection leaves the program as it is.',
  role: 'operate',
  nature: 'session',
  since,
  arguments: z.strictObject({
    guest: guestReference,
    fromOffset: z
      .int()
      .nonnegative()
      .optional()
      .describe('Send what the program has written first, from this byte of its log on, as standard output'),
  }),
  returns: z.strictObject({ guest: z.string(), terminal: z.boolean(), interactive: z.boolean() }),
});

export const guestFileOpen = defineCommand({
  name: 'guest-file-open',
  summary: 'Open a file in a guest by its agent',
  description: 'It belongs to this connection, and is closed with it. A connection may have 16 open.',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({
    ...asked,
    path: z.string().min(1).max(4096),
    mode: z
      .enum(['r', 'r+', 'w', 'w+', 'a', 'a+'])
      .default('r')
      .describe('As of fopen(3); a new file gets the permissions that the agent gives'),
  }),
  returns: z.strictObject({ handle }),
});

export const guestFileRead = defineCommand({
  name: 'guest-file-read',
  summary: 'Read from an open file in a guest',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({
    ...asked,
    handle,
    count: z.int().min(1).max(MAX_FILE_CHUNK_BYTES).default(MAX_FILE_CHUNK_BYTES).describe('Bytes at most'),
  }),
  returns: z.strictObject({ buf: z.base64().describe('Base64'), eof: z.boolean() }),
});

export const guestFileWrite = defineCommand({
  name: 'guest-file-write',
  summary: 'Write to an open file in a guest',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({
    ...asked,
    handle,
    buf: z
      .base64()
      .max(Math.ceil(MAX_FILE_CHUNK_BYTES / 3) * 4)
      .describe('Base64'),
  }),
  returns: z.strictObject({ count: z.int().describe('Bytes that were written') }),
});

export const guestFileSeek = defineCommand({
  name: 'guest-file-seek',
  summary: 'Set the place in an open file in a guest',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({
    ...asked,
    handle,
    offset: z.int().default(0),
    whence: z.enum(['set', 'cur', 'end']).default('set'),
  }),
  returns: z.strictObject({ position: z.int().describe('Bytes from the beginning') }),
});

export const guestFileClose = defineCommand({
  name: 'guest-file-close',
  summary: 'Close an open file in a guest, what was written flushed first',
  role: 'operate',
  ...wait,
  arguments: z.strictObject({ ...asked, handle }),
  returns: z.strictObject({}),
});

export const guestFsfreezeStatus = defineCommand({
  name: 'guest-fsfreeze-status',
  summary: "Ask a guest's agent whether its file systems are frozen",
  role: 'read',
  ...wait,
  arguments: z.strictObject(asked),
  returns: z.strictObject({ status: fsfreezeStatus }),
});

export const guestFsfreezeFreeze = defineCommand({
  name: 'guest-fsfreeze-freeze',
  summary: "Freeze a guest's file systems by its agent, for a while",
  description:
    'What was written is on the disks then, and nothing more is written: the moment to copy them. The daemon thaws it when the time is over, whatever becomes of the client and of the daemon itself, and before a stop or a pause; an agent that does not take that is told again until it does. A frozen agent runs no programs and opens no files.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...asked,
    forMs: durationMs.min(1).max(600_000).default(60_000).describe('Thaw it after this time'),
    ...changing,
  }),
  returns: accepted,
});

export const guestFsfreezeThaw = defineCommand({
  name: 'guest-fsfreeze-thaw',
  summary: "Thaw a guest's frozen file systems by its agent",
  description: 'Also what others have frozen.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...asked, ...changing }),
  returns: accepted,
});

/** Commands on the session, the contract itself, events and tokens. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { eventName, eventView } from '../events.ts';
import { guestReference, millisecondsSinceEpoch, role } from '../types.ts';

const since = '0.1.0';

export const qmpCapabilities = defineCommand({
  name: 'qmp_capabilities',
  summary: 'Leave negotiation mode, as in QMP',
  description: 'Must be the first command on a connection. Guest lifecycle events arrive from then on.',
  role: 'read',
  nature: 'session',
  since,
  arguments: z.strictObject({ enable: z.array(z.string()).max(0, 'no capability is offered').optional() }),
  returns: z.strictObject({}),
});

export const queryVersion = defineCommand({
  name: 'query-version',
  summary: 'Show the version, in the form of QMP',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({}),
  returns: z.strictObject({
    qemu: z
      .strictObject({ major: z.int(), minor: z.int(), micro: z.int() })
      .describe("Version of Roost under QMP's own name"),
    package: z.string(),
  }),
});

export const queryCommands = defineCommand({
  name: 'query-commands',
  summary: 'List the commands, in the form of QMP',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({}),
  returns: z.array(z.strictObject({ name: z.string() })),
});

export const querySchema = defineCommand({
  name: 'query-schema',
  summary: 'Describe commands, events and errors as JSON Schema',
  description:
    'Without a name it lists what there is; with one it gives the JSON Schema (draft 2020-12) of that command or event.',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({ name: z.string().max(64).optional().describe('A command or an event') }),
  returns: z.record(z.string(), z.json()),
});

const eventFilter = {
  events: z.array(eventName).optional().describe('Only these; without it the lifecycle of guests'),
  guests: z.array(guestReference).max(1000).optional().describe('Only events of these guests'),
};

export const eventsSubscribe = defineCommand({
  name: 'events-subscribe',
  summary: 'Choose which events this connection gets, and from where',
  description:
    'Replaces what the connection got before. With `since` every kept event after that sequence comes first, without a gap; what is no longer kept is reported by EVENTS_LOST. An empty list of events silences the connection.',
  role: 'read',
  nature: 'session',
  since,
  arguments: z.strictObject({
    ...eventFilter,
    since: z.int().nonnegative().optional().describe('Sequence of the last event seen'),
  }),
  returns: z.strictObject({ lastSequence: z.int().describe('Sequence of the newest event at this moment') }),
});

export const queryEvents = defineCommand({
  name: 'query-events',
  summary: 'Read kept events',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({
    ...eventFilter,
    since: z.int().nonnegative().default(0).describe('Only events after this sequence'),
    limit: z.int().min(1).max(1_000).optional().describe('Without it a page stays under 64 KiB'),
  }),
  returns: z.strictObject({
    events: z.array(eventView),
    lost: z
      .strictObject({ from: z.int(), to: z.int() })
      .optional()
      .describe('Sequences after `since` that are no longer kept'),
    next: z.int().optional().describe('`since` of the next page; absent on the last'),
  }),
});

const tokenName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'must be 1 to 63 of a-z, 0-9, dot, underscore and hyphen');

export const tokenCreate = defineCommand({
  name: 'token-create',
  summary: 'Create a token for the WebSocket',
  description: 'The secret is shown once and stored only as a hash.',
  role: 'admin',
  nature: 'query',
  since,
  arguments: z.strictObject({
    name: tokenName.optional().describe('Made up of the role and a number unless given'),
    role: role.default('read'),
  }),
  returns: z.strictObject({ name: z.string(), role, token: z.string().describe('The secret') }),
});

export const tokenRevoke = defineCommand({
  name: 'token-revoke',
  summary: 'Revoke a token and close its connections',
  role: 'admin',
  nature: 'query',
  since,
  arguments: z.strictObject({ name: tokenName }),
  returns: z.strictObject({ name: z.string() }),
});

export const queryTokens = defineCommand({
  name: 'query-tokens',
  summary: 'List tokens',
  role: 'admin',
  nature: 'query',
  since,
  arguments: z.strictObject({}),
  returns: z.strictObject({
    tokens: z.array(
      z.strictObject({
        name: z.string(),
        role,
        createdAt: millisecondsSinceEpoch,
        lastUsedAt: millisecondsSinceEpoch.optional(),
      }),
    ),
  }),
});

/** Commands on guests. */
import { z } from 'zod';
import { seedFiles, warnings } from '../cloud-init.ts';
import { defineCommand } from '../command.ts';
import { guestChanges, guestFields, guestSpec, guestState, guestView, labels } from '../guest.ts';
import { addressSource, readiness } from '../guest-address.ts';
import { guestHistory } from '../history.ts';
import { hostObject } from '../host-object.ts';
import { accepted, changing } from '../operation.ts';
import { programSpec } from '../program.ts';
import {
  deviceName,
  durationMs,
  guestId,
  guestName,
  guestReference,
  macAddress,
  millisecondsSinceEpoch,
  page,
} from '../types.ts';

const since = '0.1.0';
const guest = { guest: guestReference };
const acceptedWithWarnings = accepted.extend({
  warnings: warnings
    .optional()
    .describe('What cloud-init would take, but hardly as it was meant; for people'),
});

export const guestCreate = defineCommand({
  name: 'guest-create',
  summary: 'Create a guest',
  description:
    'The guest is stopped afterwards unless `start` is given. Its machine is pinned now: later starts give it the same.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guestSpec.shape,
    start: z.boolean().default(false).describe('Start it as well'),
    ...changing,
  }),
  returns: acceptedWithWarnings,
});

export const guestUpdate = defineCommand({
  name: 'guest-update',
  summary: "Change a guest's settings",
  description:
    'Settings of the machine apply at its next start and show as pendingChanges until then; all others at once.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...guest, ...guestChanges.shape, ...changing }),
  returns: acceptedWithWarnings,
});

export const guestRename = defineCommand({
  name: 'guest-rename',
  summary: 'Give a stopped guest another name',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...guest, newName: guestName, ...changing }),
  returns: accepted,
});

export const guestStart = defineCommand({
  name: 'guest-start',
  summary: 'Start a guest',
  description:
    'Succeeds at once for a guest that runs already. Refused with ResourceExhausted and the numbers when the host lacks the memory.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    paused: z.boolean().default(false).describe('Leave it paused before its first instruction'),
    ...changing,
  }),
  returns: accepted,
});

export const templateCreate = defineCommand({
  name: 'template-create',
  summary: 'Make a template of a guest',
  description:
    'A stopped guest that runs a container image is booted to where its main program would begin, and kept so: it runs no more. Of a guest that runs, `name` makes a template with its memory and its disks as they are, and all that runs in it; one that boots no container image has to be a Linux whose agent answers. The guest itself goes on as the first fork of it, the same to everybody: for some tens of milliseconds it stands still (pausedMs of the result), and who is attached to it or runs a program in it is cut off. Guests are forked from it in some tens of milliseconds, by guest-fork, and by guest-create where it asks for the same. Its memory is held as long as its process lives; when that has ended, by guest-stop or with the host, forks of it boot.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    name: guestName.optional().describe('Of a guest that runs: the name of the template that is made of it'),
    ...changing,
  }),
  returns: accepted,
});

export const guestFork = defineCommand({
  name: 'guest-fork',
  summary: 'Make a guest of a template and run a program in it',
  description:
    'The guest has the machine, the memory and the disks of the template as they were when it was made, and addresses, name and machine-id of its own. Its random generator and its clock are new before anything runs in it, or, where its system runs already, before its links come up. It begins with the memory of the template if that is there, and boots otherwise. Settings that are not given are those of the template.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    template: guestReference,
    name: guestName,
    program: programSpec
      .omit({ image: true })
      .optional()
      .describe('In place of what the template would run; only of a template of a container image'),
    labels: labels.optional(),
    ...changing,
  }),
  returns: accepted,
});

export const guestStop = defineCommand({
  name: 'guest-stop',
  summary: 'Stop a guest',
  description:
    'Thaws the guest if it is frozen, presses the ACPI power button, again every ten seconds as a guest that boots does not hear it, from the second time on asks the agent too where there is one, and waits for the guest; after the deadline it is ended by force. The deadline survives a restart of the daemon. Cancels a start that is under way and silences the restart policy.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    force: z.boolean().default(false).describe('End it at once, as if its power was cut'),
    timeoutMs: durationMs
      .max(86_400_000)
      .optional()
      .describe("Deadline; the guest's stopTimeoutMs unless given"),
    mode: z
      .enum(['acpi', 'agent'])
      .optional()
      .describe('Ask by the power button alone, or by the agent alone; both unless given'),
    ...changing,
  }),
  returns: accepted,
});

export const guestReset = defineCommand({
  name: 'guest-reset',
  summary: 'Press the reset button of a guest',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...guest, ...changing }),
  returns: accepted,
});

export const guestPause = defineCommand({
  name: 'guest-pause',
  summary: "Stop a guest's CPUs, keeping its memory",
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...guest, ...changing }),
  returns: accepted,
});

export const guestResume = defineCommand({
  name: 'guest-resume',
  summary: 'Let a paused guest go on',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...guest, ...changing }),
  returns: accepted,
});

export const guestDelete = defineCommand({
  name: 'guest-delete',
  summary: 'Delete a guest with its disks',
  description:
    'With force it always succeeds: what could not be ended or removed within a time is named in gaveUpOn of the result, and its rows stay in the ledger for fsck.',
  role: 'operate',
  nature: 'change',
  since,
  arguments: z.strictObject({
    ...guest,
    force: z
      .boolean()
      .default(false)
      .describe('End it first if it runs, and go on without what cannot be ended or removed'),
    ...changing,
  }),
  returns: accepted,
});

export const guestResetState = defineCommand({
  name: 'guest-reset-state',
  summary: 'Put a guest that is stuck into a stated state',
  description:
    'Cancels whatever is under way on the guest, looks at the facts, frees what its run had, and records the state; its target becomes stopped. Refused while its process lives, unless with force: then the process is ended, and one that does not end is abandoned. The result names in gaveUpOn what was given up; its rows stay in the ledger.',
  role: 'admin',
  nature: 'change',
  since: '0.2.0',
  arguments: z.strictObject({
    ...guest,
    to: z.enum(['stopped', 'failed']).default('stopped').describe('The state to record'),
    force: z.boolean().default(false).describe('Also while its process lives: end it, or abandon it'),
    ...changing,
  }),
  returns: accepted,
});

export const guestAdopt = defineCommand({
  name: 'guest-adopt',
  summary: 'Take over a guest of this instance that is lost from the inventory',
  description:
    'One that runs is named by the pid of its process or by one of its sockets, a stopped one by its id; query-fsck lists both. The guest is rebuilt from its record beside its disks, or, where that is lost too, from what its process tells, and goes on as it is; the result lists what that does not know. Refused where its name, number, an address or a port of the host is taken, for a process that was not launched by Roost or belongs to another instance.',
  role: 'admin',
  nature: 'change',
  since: '0.2.0',
  arguments: z
    .strictObject({
      pid: z.int().positive().optional().describe('Pid of its process'),
      socket: z.string().startsWith('/').max(4096).optional().describe('Path of its monitor socket'),
      guest: guestId.optional().describe('Id of a stopped one'),
      ...changing,
    })
    .refine(
      ({ pid, socket, guest: id }) => [pid, socket, id].filter((named) => named !== undefined).length === 1,
      'needs one of a pid, a socket and an id',
    ),
  returns: accepted,
});

export const guestPlan = defineCommand({
  name: 'guest-plan',
  summary: 'Show what a start would run and change on the host, without doing it',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject(guest),
  returns: z.strictObject({
    argv: z
      .array(z.string())
      .describe('The exact command line; descriptors are numbered as the process sees them'),
    objects: z.array(hostObject).describe('What the start makes on the host'),
  }),
});

export const queryGuests = defineCommand({
  name: 'query-guests',
  summary: 'List guests',
  description: 'Answers from memory and never asks a guest, so a silent guest delays nobody. Sorted by name.',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({
    names: z.array(guestReference).max(10_000).optional().describe('Only these, by name or id'),
    nameGlob: z.string().max(128).optional().describe('Only names that match; * and ? are wild'),
    states: z.array(guestState).optional(),
    labels: z.record(z.string(), z.string()).optional().describe('Only guests that carry all of these'),
    fields: z
      .array(z.enum(guestFields as [string, ...string[]]))
      .min(1)
      .optional()
      .describe('Only these members'),
    ...page,
  }),
  returns: z.strictObject({
    guests: z.array(guestView.partial()),
    total: z.int().describe('Guests that match, on all pages'),
    next: z.string().optional().describe('`after` of the next page; absent on the last'),
  }),
});

export const queryGuest = defineCommand({
  name: 'query-guest',
  summary: 'Show one guest',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject(guest),
  returns: guestView,
});

export const queryGuestHistory = defineCommand({
  name: 'query-guest-history',
  summary: "Tell a guest's life: what was done to it, by whom, and what it did itself",
  description: 'Also of a guest that was deleted, by its id or the name it had last. The oldest comes first.',
  role: 'read',
  nature: 'query',
  since: '0.2.0',
  arguments: z.strictObject({ ...guest, ...page }),
  returns: guestHistory,
});

export const queryGuestCloudInit = defineCommand({
  name: 'query-guest-cloud-init',
  summary: 'Show what cloud-init in a guest is told',
  description:
    'The files of the seed as the next start would make them. Passwords and what looks like a secret are hidden.',
  role: 'operate',
  nature: 'query',
  since,
  arguments: z.strictObject(guest),
  returns: seedFiles,
});

/** What guest-wait can wait for. */
export const guestWaits = {
  ready: 'It runs and has proven that it is up',
  running: 'It runs',
  paused: 'Its CPUs stand still',
  stopped: 'It has no process',
} as const;
export type GuestWait = keyof typeof guestWaits;

export const guestWait = defineCommand({
  name: 'guest-wait',
  summary: 'Wait until a guest is ready, or in a state',
  description:
    'Answers at once if it is so. Fails with FailedPrecondition when the guest comes to an end where it would not get there any more, with DeadlineExceeded after timeoutMs; the guest is left alone either way.',
  role: 'read',
  nature: 'wait',
  since,
  arguments: z.strictObject({
    ...guest,
    until: z
      .enum(Object.keys(guestWaits) as [GuestWait, ...GuestWait[]])
      .default('ready')
      .describe('ready: it runs and its agent, its address or its SSH server has answered since the start'),
    timeoutMs: durationMs.max(86_400_000).optional().describe('Give up waiting after this'),
  }),
  returns: guestView,
});

export const queryGuestAddresses = defineCommand({
  name: 'query-guest-addresses',
  summary: 'Show the addresses of a guest, and where each is known from',
  description:
    'The best evidence first. Asks the host, and the agent of the guest where it has one, so it may take a moment; a silent agent is passed over.',
  role: 'read',
  nature: 'wait',
  since,
  arguments: z.strictObject(guest),
  returns: z.strictObject({
    guest: guestId,
    name: z.string(),
    ready: readiness.optional(),
    nics: z.array(
      z.strictObject({
        name: deviceName,
        network: z.string(),
        mac: macAddress,
        addresses: z.array(
          z.strictObject({
            address: z.string().describe('IPv4 or IPv6; of a forward the address of the host'),
            source: addressSource,
            port: z.int().optional().describe('Of a forward: the port of the host'),
            guestPort: z.int().optional().describe('Of a forward: the port in the guest'),
            protocol: z.enum(['tcp', 'udp']).optional().describe('Of a forward'),
            state: z.string().optional().describe('Of a neighbour entry, as reachable or stale'),
            expiresAt: millisecondsSinceEpoch.optional().describe('Of a lease'),
          }),
        ),
        droppedFrames: z
          .record(z.string(), z.int())
          .describe('Frames of the guest that were dropped since its start, by reason'),
      }),
    ),
  }),
});

export const guestLogStreams = ['console', 'process', 'events', 'program'] as const;

export const queryGuestLog = defineCommand({
  name: 'query-guest-log',
  summary: "Read a part of a guest's log",
  description:
    'The console log holds what the guest wrote to its serial console, also while the daemon was away.',
  role: 'read',
  nature: 'query',
  since,
  arguments: z.strictObject({
    ...guest,
    stream: z
      .enum(guestLogStreams)
      .optional()
      .describe(
        "console: the guest's serial console, the default; program: what the main program of a container image writes, the default of a guest that has one; process: standard error of its process, QEMU or a container's warden; events: that process's own event log",
      ),
    offset: z.int().nonnegative().optional().describe('Byte to start at; without it the last maxBytes'),
    maxBytes: z.int().min(1).max(65_536).default(32_768),
  }),
  returns: z.strictObject({
    text: z.string().describe('UTF-8; what is not is replaced'),
    offset: z.int().describe('Where this part starts'),
    nextOffset: z.int(),
    sizeBytes: z.int(),
  }),
});

export const guestConsole = defineCommand({
  name: 'guest-console',
  summary: "Attach this connection to a guest's serial console",
  description:
    'After the reply the connection carries frames as that of guest-exec-session does: what the guest writes is standard output, what is typed at it standard input. Its end says why it is over: closed: guest-ended when the guest has ended, else an error, as for a client that was too far behind. Several clients may be attached; each gets all that the guest writes, and all write to its one line, which has no size, no signals and no end of input: such frames change nothing. Closing the connection leaves the guest as it is.',
  role: 'operate',
  nature: 'session',
  since,
  arguments: z.strictObject({
    ...guest,
    framed: z
      .literal(true, { error: 'must be true; a roost that leaves it out is older than this roostd' })
      .describe('That the client expects frames; before there were any, the connection carried the bytes'),
    replayBytes: z.int().min(0).max(65_536).default(0).describe('Send the end of the console log first'),
  }),
  returns: z.strictObject({ guest: z.string() }),
});

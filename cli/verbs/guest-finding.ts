/** Verbs that find a guest: its addresses, when it is up, and the way in. */
import { printAddresses } from '../print/addresses.ts';
import { type Flag, type Positional, query, type Verb } from '../verb.ts';
import { runWait } from '../waiting.ts';

const guest: Positional = { name: 'NAME', member: 'guest', complete: 'guest' };
const guests: Positional = { ...guest, variadic: true };

const waitPositionals: readonly Positional[] = [guests];
const waitFlags: readonly Flag[] = [
  { name: 'until', short: 'u', member: 'until', description: 'What to wait for' },
  { name: 'timeout', short: 't', member: 'timeoutMs' },
];

const wait: Verb = {
  words: 'wait',
  command: 'guest-wait',
  details:
    'A guest is ready once it has proven that it is up: its agent, its address or its SSH server has answered.',
  positionals: waitPositionals,
  flags: waitFlags,
  run: runWait({ positionals: waitPositionals, flags: waitFlags }),
};

const ssh: Verb = {
  words: 'ssh',
  command: 'query-guest-addresses',
  uses: ['guest-wait', 'query-guest'],
  summary: 'Log in to a guest, or run a command there, with ssh',
  details:
    "Runs the system's own ssh, whose exit code is the result. Waits until the guest is up. The user is that of --user, else of the guest's label ssh-user, else the one given to cloud-init, else ssh's own choice.",
  positionals: [
    guest,
    {
      name: 'COMMAND',
      optional: true,
      variadic: true,
      description: 'After --: what to run there instead of a shell',
    },
  ],
  flags: [
    { name: 'user', short: 'u', type: 'string', value: 'name', description: 'User to log in as' },
    {
      name: 'identity',
      short: 'i',
      type: 'string',
      value: 'file',
      description: 'Private key to log in with',
      complete: 'file',
    },
    {
      name: 'port',
      short: 'p',
      type: 'integer',
      value: 'port',
      description: 'Port of the SSH server in the guest (default: 22)',
    },
    {
      name: 'timeout',
      short: 't',
      type: 'duration',
      value: 'duration',
      description: 'How long to wait until the guest is up and its SSH server listens (default: 2m)',
    },
    { name: 'no-wait', description: 'Do not wait; try once' },
  ],
  run: async (invocation, context) => (await import('../ssh.ts')).runSsh(invocation, context),
};

export const findingVerbs: readonly Verb[] = [
  query({
    words: 'address',
    aliases: ['addresses'],
    command: 'query-guest-addresses',
    positionals: [guest],
    print: (reply, _, { io, note }) => {
      if (reply.nics.length === 0) note(`${reply.name} has no NIC.`);
      return reply.nics.length === 0 ? [] : printAddresses(reply, io.now());
    },
  }),
  wait,
  ssh,
];

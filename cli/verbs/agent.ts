/** Verbs that the agent in a guest carries out. */
import type { AgentInfo, AgentInterface, FsfreezeStatus } from '../../protocol/agent.ts';
import { change } from '../change.ts';
import type { Context } from '../io.ts';
import { renderFields, renderTable } from '../print/table.ts';
import type { Positional, Verb } from '../verb.ts';

const guest: Positional = { name: 'NAME', member: 'guest', complete: 'guest' };
const guests: Positional = { ...guest, variadic: true };

interface Told {
  readonly info: AgentInfo;
  /** Absent where the agent tells none, as while it is frozen. */
  readonly interfaces?: readonly AgentInterface[];
  readonly fileSystems?: FsfreezeStatus;
}

const addressRows = (interfaces: readonly AgentInterface[]): string[][] =>
  interfaces.map(({ name, hardwareAddress, ipAddresses }) => [
    name,
    hardwareAddress ?? '',
    ipAddresses.map(({ ipAddress, prefix }) => `${ipAddress}/${prefix}`).join(','),
  ]);

const printAgent = ({ info, interfaces, fileSystems }: Told, context: Context): void => {
  if (context.json) {
    context.printJson({ ...info, fileSystems, interfaces });
    return;
  }
  context.print([
    ...renderFields([
      ['Version', info.version],
      ['Commands', String(info.supportedCommands.length)],
      ['File systems', fileSystems],
    ]),
    ...(interfaces ? renderTable(['interface', 'mac', 'addresses'], addressRows(interfaces)) : []),
  ]);
};

export const agentVerbs: readonly Verb[] = [
  {
    words: 'agent',
    command: 'guest-info',
    uses: ['guest-network-get-interfaces', 'guest-fsfreeze-status'],
    summary: "Ask a guest's agent for its version and the guest's addresses",
    details: 'What it shows is the word of the guest.',
    positionals: [guest],
    flags: [],
    run: async ({ positionals }, context) => {
      const client = await context.client();
      const args = { guest: String(positionals['NAME']) };
      const { signal } = context;
      const info = await client.call('guest-info', args, { signal });
      const tells = (command: string): boolean => info.supportedCommands.includes(command);
      const addresses = tells('guest-network-get-interfaces')
        ? await client.call('guest-network-get-interfaces', args, { signal })
        : {};
      const freezing = tells('guest-fsfreeze-status')
        ? { fileSystems: (await client.call('guest-fsfreeze-status', args, { signal })).status }
        : {};
      printAgent({ info, ...addresses, ...freezing }, context);
      return 0;
    },
  },
  {
    words: 'exec',
    command: 'guest-exec-session',
    uses: ['guest-exec', 'guest-exec-status'],
    summary: 'Run a program in a guest by its agent',
    details:
      'Its exit code is that of roost. Where a container image or a container runs, it is as if the program ran here: with -it on this terminal, and 126 is for what could not be executed, 127 for what was not found. By the QEMU guest agent its output comes when it has ended, and its input, up to 256 KiB, is given before.',
    positionals: [
      guest,
      { name: 'CMD', variadic: true, command: true, description: 'The program and its arguments' },
    ],
    flags: [
      { name: 'interactive', short: 'i', description: 'Give it standard input' },
      {
        name: 'terminal',
        short: 't',
        description: 'Give it a terminal, as -it for a shell',
      },
      { name: 'user', short: 'u', member: 'user', value: 'user' },
      { name: 'workdir', short: 'w', member: 'workingDirectory', value: 'path' },
      { name: 'env', short: 'e', member: 'env', value: 'NAME=value' },
      {
        name: 'detach',
        short: 'd',
        description:
          "Do not wait for its end, and print its process id in the guest, as 'roost top' shows it; roost exec NAME sh -c 'kill PID' ends it",
      },
    ],
    run: async (...given) => (await import('../exec.ts')).execInGuest(...given),
  },
  {
    words: 'cp',
    command: 'guest-file-open',
    uses: ['guest-file-read', 'guest-file-write', 'guest-file-seek', 'guest-file-close', 'guest-exec'],
    summary: 'Copy a file into a guest or out of it, by its agent',
    details: 'One of the two is NAME:/path. For files up to 1 GiB; the network is faster.',
    positionals: [
      { name: 'FROM', description: 'A file here, or NAME:/path', complete: 'file' },
      { name: 'TO', description: 'A file or directory here, or NAME:/path', complete: 'file' },
    ],
    flags: [],
    run: async (...given) => (await import('../copy.ts')).copyFile(...given),
  },
  change({
    words: 'freeze',
    command: 'guest-fsfreeze-freeze',
    positionals: [guests],
    flags: [
      { name: 'for', member: 'forMs' },
      { name: 'timeout', short: 't', member: 'timeoutMs' },
    ],
    done: 'frozen',
  }),
  change({
    words: 'thaw',
    command: 'guest-fsfreeze-thaw',
    positionals: [guests],
    flags: [{ name: 'timeout', short: 't', member: 'timeoutMs' }],
    done: 'thawed',
  }),
];

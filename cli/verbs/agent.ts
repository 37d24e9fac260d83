/** Verbs that the agent in a guest carries out. */
import type { AgentInfo, AgentInterface } from '../../protocol/agent.ts';
import { copyFile } from '../copy.ts';
import { execInGuest } from '../exec.ts';
import type { Context } from '../io.ts';
import { renderFields, renderTable } from '../print/table.ts';
import type { Positional, Verb } from '../verb.ts';

const guest: Positional = { name: 'NAME', member: 'guest', complete: 'guest' };

const addressRows = (interfaces: readonly AgentInterface[]): string[][] =>
  interfaces.map(({ name, hardwareAddress, ipAddresses }) => [
    name,
    hardwareAddress ?? '',
    ipAddresses.map(({ ipAddress, prefix }) => `${ipAddress}/${prefix}`).join(','),
  ]);

const printAgent = (info: AgentInfo, interfaces: readonly AgentInterface[], context: Context): void => {
  if (context.json) {
    context.printJson({ ...info, interfaces });
    return;
  }
  context.print([
    ...renderFields([
      ['Version', info.version],
      ['Commands', String(info.supportedCommands.length)],
    ]),
    ...renderTable(['interface', 'mac', 'addresses'], addressRows(interfaces)),
  ]);
};

export const agentVerbs: readonly Verb[] = [
  {
    words: 'agent',
    command: 'guest-info',
    uses: ['guest-network-get-interfaces'],
    summary: "Ask a guest's agent for its version and the guest's addresses",
    details: 'What it shows is the word of the guest.',
    positionals: [guest],
    flags: [],
    run: async ({ positionals }, context) => {
      const client = await context.client();
      const args = { guest: String(positionals['NAME']) };
      const info = await client.call('guest-info', args, { signal: context.signal });
      const { interfaces } = await client.call('guest-network-get-interfaces', args, {
        signal: context.signal,
      });
      printAgent(info, interfaces, context);
      return 0;
    },
  },
  {
    words: 'exec',
    command: 'guest-exec',
    uses: ['guest-exec-status'],
    details:
      'Needs the QEMU guest agent in the guest. Write the command behind --. Its output comes when it has ended; its exit code is that of roost.',
    positionals: [guest, { name: 'CMD', variadic: true, description: 'The program and its arguments' }],
    flags: [
      { name: 'interactive', short: 'i', description: 'Give it standard input, up to 256 KiB' },
      { name: 'env', short: 'e', member: 'env', value: 'NAME=value' },
      { name: 'detach', short: 'd', description: 'Print its process id and do not wait for its end' },
    ],
    run: execInGuest,
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
    run: copyFile,
  },
];

/** How a fork is told who it is, to an agent that answers as a guest's does, refuses, lies or is silent. */
import { afterEach, describe, expect, it } from 'vitest';
import type { ForkIdentity } from '../../../../drivers/driver.ts';
import { AgentClient } from '../../../../drivers/qemu/agent/agent-client.ts';
import { AgentTeller } from '../../../../drivers/qemu/agent/agent-teller.ts';
import { neededCommands } from '../../../../drivers/qemu/agent/identity-commands.ts';
import { EvilAgent, healthy, reply } from './evil-agent.ts';

const never = (): AbortSignal => new AbortController().signal;
const TEMPLATES_MAC = '52:54:00:00:00:01';
const MAC = '52:54:00:00:00:02';
const ADDRESS = '10.91.0.7/24';
const fork = { token: 'the-token', macs: [TEMPLATES_MAC], isItself: false };
const identity: ForkIdentity = {
  fork,
  hostname: 'one',
  machineId: '0123456789abcdef0123456789abcdef',
  links: [{ mac: MAC, addresses: [ADDRESS], gateway: '10.91.0.1' }],
};

/** A guest as an agent shows it: files, interfaces and programs; what it does is written down. */
class ModelGuest {
  readonly files = new Map<string, string>([
    ['/proc/mounts', 'udev /dev devtmpfs rw 0 0\ntmpfs /run tmpfs rw,nosuid 0 0\n'],
    ['/etc/machine-id', 'fedcba9876543210fedcba9876543210\n'],
    ['/run/roost-fork-token', fork.token],
  ]);
  readonly programs = new Set(['perl', 'python3', 'ip', 'systemctl']);
  /** Programs that are there and fail. */
  readonly failing = new Set<string>();
  readonly told: string[] = [];
  readonly interfaces = [
    { name: 'lo', mac: '00:00:00:00:00:00', addresses: ['127.0.0.1/8'] },
    { name: 'nic0', mac: TEMPLATES_MAC, addresses: ['10.91.0.2/24'] },
  ];
  commands: readonly string[] = neededCommands;
  /** Whether its own network manager takes the addresses from the network. */
  asksNetwork = true;
  clockOff = 0;
  clockRefusal: string | undefined;
  silentAt: string | undefined;
  readonly #open = new Map<number, { readonly path: string; text: string }>();
  #next = 1000;

  answer(command: string, args: Readonly<Record<string, unknown>>): unknown {
    const text = (member: string): string => String(args[member]);
    const file = this.#open.get(Number(args['handle']));
    switch (command) {
      case 'guest-info':
        return {
          version: '7.2',
          supported_commands: this.commands.map((name) => ({ name, enabled: true })),
        };
      case 'guest-file-open': {
        const content = this.files.get(text('path'));
        if (content === undefined && text('mode') !== 'w') throw new Error('No such file or directory');
        this.#next += 1;
        this.#open.set(this.#next, { path: text('path'), text: content ?? '' });
        return this.#next;
      }
      case 'guest-file-read': {
        const bytes = Buffer.from(file?.text ?? '');
        return { count: bytes.length, 'buf-b64': bytes.toString('base64'), eof: true };
      }
      case 'guest-file-write': {
        const bytes = Buffer.from(text('buf-b64'), 'base64');
        if (file) file.text = bytes.toString();
        this.told.push(`write ${file?.path} ${JSON.stringify(bytes.toString())}`);
        if (file) this.files.set(file.path, bytes.toString());
        return { count: bytes.length };
      }
      case 'guest-file-flush':
      case 'guest-file-close':
        return {};
      case 'guest-set-time':
        this.told.push('set-time');
        if (this.clockRefusal !== undefined) throw new Error(this.clockRefusal);
        return {};
      case 'guest-get-time':
        return (Date.now() + this.clockOff) * 1_000_000;
      case 'guest-network-get-interfaces':
        return this.interfaces.map(({ name, mac, addresses }) => ({
          name,
          'hardware-address': mac,
          'ip-addresses': addresses.map((address) => ({
            'ip-address': address.split('/')[0],
            'ip-address-type': 'ipv4',
            prefix: Number(address.split('/')[1]),
          })),
        }));
      case 'guest-exec':
        return { pid: this.#exec([text('path'), ...(args['arg'] as string[])], args['input-data']) };
      case 'guest-exec-status': {
        const failed = Number(args['pid']) === 13;
        const said = Buffer.from('no way\n').toString('base64');
        return { exited: true, exitcode: failed ? 1 : 0, ...(failed ? { 'err-data': said } : {}) };
      }
      default:
        throw new Error(`the model knows no ${command}`);
    }
  }

  #exec(argv: readonly string[], input: unknown): number {
    const [program = ''] = argv;
    if (!this.programs.has(program)) throw new Error(`Failed to execute child process ${program}`);
    const bytes = typeof input === 'string' ? Buffer.from(input, 'base64').length : 0;
    this.told.push([`run ${JSON.stringify(argv)}`, ...(bytes === 0 ? [] : [`< ${bytes} bytes`])].join(' '));
    if (this.failing.has(program)) return 13;
    const [, nic] = this.interfaces;
    if (nic && argv.includes('down')) nic.mac = argv.at(-1) ?? '';
    if (nic && argv.includes('flush')) nic.addresses = [];
    if (nic && argv.includes('add')) nic.addresses.push(argv[3] ?? '');
    if (nic && program === 'systemctl' && this.asksNetwork) nic.addresses = [ADDRESS];
    return 12;
  }
}

let guest: ModelGuest;
let agent: EvilAgent;
let client: AgentClient;

const start = async (): Promise<AgentTeller> => {
  guest = new ModelGuest();
  agent = await EvilAgent.start((message, line) => {
    if (message.execute === guest.silentAt) return;
    if (message.execute.startsWith('guest-sync')) return healthy()(message, line);
    try {
      reply(line, { return: guest.answer(message.execute, message.arguments) });
    } catch (error) {
      reply(line, { error: { class: 'GenericError', desc: error instanceof Error ? error.message : '' } });
    }
  });
  client = new AgentClient(agent.path);
  return new AgentTeller(client, { ownWayMs: 0 });
};

const begin = async (): Promise<AgentTeller> => {
  const teller = await start();
  client.portChanged(true);
  return teller;
};

afterEach(async () => {
  client.close();
  await agent[Symbol.asyncDispose]();
});

const golden = (name: string): string => `../../../golden/full-forks/${name}.txt`;
const toldText = (): string => `${guest.told.join('\n')}\n`;

describe('a fork', () => {
  it('is told all that it is, random bytes first', async () => {
    const teller = await begin();
    await teller.tellIdentity(identity, never());
    await teller.settleAddresses(identity.links, never());
    await expect(toldText()).toMatchFileSnapshot(golden('fork'));
  });

  it('that takes no address from its network is given it', async () => {
    const teller = await begin();
    guest.asksNetwork = false;
    await teller.tellIdentity(identity, never());
    await teller.settleAddresses(identity.links, never());
    await expect(toldText()).toMatchFileSnapshot(golden('fork-without-network-manager'));
  });

  it('that is the template’s own guest keeps its names and its addresses', async () => {
    const teller = await begin();
    await teller.tellIdentity({ ...identity, fork: { ...fork, isItself: true } }, never());
    await expect(toldText()).toMatchFileSnapshot(golden('itself'));
  });

  it('is told the same again after a crash in the middle', async () => {
    const teller = await begin();
    await teller.tellIdentity(identity, never());
    const first = toldText();
    guest.told.length = 0;
    await teller.tellIdentity(identity, never());
    expect(toldText()).toBe(first);
  });

  it('without perl, systemd and machine-id does without', async () => {
    const teller = await begin();
    guest.programs.delete('perl');
    guest.programs.delete('systemctl');
    guest.files.delete('/etc/machine-id');
    await teller.tellIdentity(identity, never());
    await teller.settleAddresses(identity.links, never());
    await expect(toldText()).toMatchFileSnapshot(golden('fork-with-python'));
  });

  it.each([
    ['another token', 'no-token'],
    ['no token', undefined],
  ])('that has %s is none, and is told nothing', async (_title, token) => {
    const teller = await begin();
    guest.files.delete('/run/roost-fork-token');
    if (token !== undefined) guest.files.set('/run/roost-fork-token', token);
    await expect(teller.tellIdentity(identity, never())).rejects.toMatchObject({
      class: 'HostError',
      message: 'The guest is no fork of its template: it does not know its token',
    });
    expect(guest.told).toEqual([]);
  });

  it.each(['guest-file-open', 'guest-exec', 'guest-exec-status', 'guest-get-time'])(
    'that is silent at %s keeps nobody longer than the signal',
    async (silentAt) => {
      const teller = await begin();
      guest.silentAt = silentAt;
      const enough = new AbortController();
      const told = teller.tellIdentity(identity, enough.signal).catch((error: unknown) => error);
      await agent.until(() => agent.asked.includes(silentAt));
      enough.abort(new Error('enough'));
      expect(await told).toMatchObject({ message: 'enough' });
    },
  );

  it('that never opens the channel keeps nobody longer either', async () => {
    const teller = await start();
    const enough = new AbortController();
    const told = teller.tellIdentity(identity, enough.signal).catch((error: unknown) => error);
    enough.abort(new Error('enough'));
    expect(await told).toMatchObject({ message: 'enough' });
  });

  it('is waited for until the channel is open', async () => {
    const teller = await start();
    const told = teller.tellIdentity(identity, never());
    client.portChanged(true);
    await told;
    expect(guest.told).not.toEqual([]);
  });

  it('may have no program to set the machine’s own clock, but has the time', async () => {
    const teller = await begin();
    guest.clockRefusal = 'hwclock failed to set hardware clock to system time';
    await teller.tellIdentity(identity, never());
    guest.clockOff = -3_600_000;
    await expect(teller.tellIdentity(identity, never())).rejects.toThrow('hwclock failed');
    guest.clockRefusal = undefined;
    await expect(teller.tellIdentity(identity, never())).rejects.toThrow('it does not take the time');
  });

  it('without its interface, or whose programs fail, does not become itself', async () => {
    const teller = await begin();
    guest.failing.add('ip');
    await expect(teller.tellIdentity(identity, never())).rejects.toThrow('ip failed: no way');
    guest.interfaces.pop();
    await expect(teller.tellIdentity(identity, never())).rejects.toThrow(
      `it has no interface with the address ${TEMPLATES_MAC}`,
    );
  });
});

describe('a guest that is to be forked', () => {
  it('is left with a token, and what its forks need was tried', async () => {
    const teller = await begin();
    await teller.prepareForForks(fork.token, never());
    await expect(toldText()).toMatchFileSnapshot(golden('prepared'));
  });

  it.each([
    [
      'whose agent is not let do it',
      (): void => {
        guest.commands = neededCommands.filter((name) => name !== 'guest-exec');
      },
      'its agent does not do guest-exec',
    ],
    [
      'that is no Linux',
      (): void => {
        guest.files.delete('/proc/mounts');
      },
      'it has no /run in memory',
    ],
    [
      'whose /run is on its disk',
      (): void => {
        guest.files.set('/proc/mounts', '/dev/vda / ext4 rw 0 0\n');
      },
      'it has no /run in memory',
    ],
    [
      'that cannot renew its random numbers',
      (): void => {
        guest.programs.delete('perl');
        guest.failing.add('python3');
      },
      'python3 failed: no way',
    ],
  ])('%s is refused with the reason', async (_title, change, why) => {
    const teller = await begin();
    change();
    await expect(teller.prepareForForks(fork.token, never())).rejects.toMatchObject({
      class: 'Unsupported',
      message: expect.stringContaining(why),
    });
  });
});

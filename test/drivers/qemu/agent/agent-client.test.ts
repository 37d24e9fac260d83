/** The client against an agent that does whatever a guest can do. */
import * as fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { AgentClient } from '../../../../drivers/qemu/agent/agent-client.ts';
import { type Behaviour, EvilAgent, healthy, reply } from './evil-agent.ts';

const info = { version: '7.2.22', supported_commands: [{ name: 'guest-ping', enabled: true }] };
const answers = { 'guest-ping': {}, 'guest-info': info };
const never = (): AbortSignal => new AbortController().signal;

let agent: EvilAgent;
let client: AgentClient;
afterEach(async () => {
  client.close();
  await agent[Symbol.asyncDispose]();
});

const start = async (behaviour: Behaviour = healthy(answers)): Promise<void> => {
  agent = await EvilAgent.start(behaviour);
  client = new AgentClient(agent.path);
  client.portChanged(true);
};

/** What a call fails with; the call may go on meanwhile. */
const failureOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    (value) => Promise.reject(new Error(`it did not fail: ${JSON.stringify(value)}`)),
    (error: unknown) => error,
  );

/** Syncs as a healthy agent does; every other request is this one's. */
const instead =
  (behaviour: Behaviour): Behaviour =>
  (message, line) =>
    (message.execute.startsWith('guest-sync') ? healthy() : behaviour)(message, line);

/** Gives a call up as soon as the agent was asked for what it is about. */
const givenUp = async (call: (signal: AbortSignal) => Promise<unknown>, command: string): Promise<void> => {
  const before = agent.asked.length;
  const controller = new AbortController();
  const failure = failureOf(call(controller.signal));
  await agent.until(() => agent.asked.slice(before).includes(command));
  controller.abort(new Error('enough'));
  expect(await failure).toMatchObject({ message: 'enough' });
};

describe('a healthy agent', () => {
  it('is synchronized with once, and then asked one thing after another', async () => {
    await start();
    await Promise.all([client.ping(never()), client.info(never()), client.ping(never())]);
    expect(agent.asked).toEqual(['guest-sync-delimited', 'guest-ping', 'guest-info', 'guest-ping']);
  });

  it('is not asked, and not connected to, while nobody has the channel open', async () => {
    await start();
    client.portChanged(false);
    await expect(client.ping(never())).rejects.toMatchObject({ class: 'Unavailable' });
    expect(agent.asked).toEqual([]);
    client.portChanged(true);
    await client.ping(never());
  });

  it('refuses in its own words, without control characters and not for long', async () => {
    await start(
      instead((_message, line) =>
        reply(line, { error: { class: 'GenericError', desc: `\u001b[2J${'no '.repeat(1000)}` } }),
      ),
    );
    const refused = await client.ping(never()).catch((error: unknown) => error);
    expect(refused).toMatchObject({ class: 'FailedPrecondition' });
    const { message } = refused as Error;
    expect(message.length).toBeLessThan(400);
    expect(message).not.toMatch(/\p{Cc}/u);
  });

  it('may not know a command', async () => {
    await start();
    await expect(client.freeze(never())).rejects.toMatchObject({ class: 'Unsupported' });
  });

  it('answers nothing to a power-off, and closes the channel', async () => {
    await start(instead(() => undefined));
    const asked = client.shutdown(never());
    await agent.until(() => agent.asked.includes('guest-shutdown'));
    client.portChanged(false);
    expect(await asked).toBeUndefined();
  });
});

describe('an agent that is silent', () => {
  it('keeps a call until its signal only, and those that wait behind it too', async () => {
    await start(() => undefined);
    const controller = new AbortController();
    const failures = [client.ping(controller.signal), client.ping(controller.signal)].map(failureOf);
    await agent.until(() => agent.asked.length > 0);
    controller.abort(new Error('enough'));
    for (const failure of failures) expect(await failure).toMatchObject({ message: 'enough' });
    agent.behaviour = healthy(answers);
    await client.ping(never());
  });

  it('answers the former request late, and the answer is nobody’s', async () => {
    await start(instead(() => undefined));
    await givenUp((signal) => client.info(signal), 'guest-info');
    // What a stopped agent does when it goes on: the old answer, then the sync's.
    agent.behaviour = (message, line) => {
      if (message.execute.startsWith('guest-sync')) reply(line, { return: info });
      healthy({ ...answers, 'guest-info': { ...info, version: '8' } })(message, line);
    };
    expect((await client.info(never())).version).toBe('8');
  });

  it('is asked by a limited number of callers at once', async () => {
    await start(() => undefined);
    const controller = new AbortController();
    const calls = Array.from({ length: 200 }, () =>
      client.ping(controller.signal).catch((error: unknown) => error),
    );
    await agent.until(() => agent.asked.length > 0);
    controller.abort(new Error('enough'));
    const failures = await Promise.all(calls);
    expect(failures.filter((error) => (error as { class?: string }).class === 'Unavailable')).toHaveLength(
      135,
    );
  });

  it('holds nobody up that lets go of the guest', async () => {
    await start(() => undefined);
    const failure = failureOf(client.ping(never()));
    await agent.until(() => agent.asked.length > 0);
    client.close();
    expect(await failure).toMatchObject({ class: 'Unavailable' });
  });
});

describe('an agent that lies', () => {
  const lies: Readonly<Record<string, unknown>> = {
    'no object': [1, 2],
    'neither return nor error': { result: {} },
    'a return of another type': { return: 'yes' },
    'an error without words': { error: 7 },
    'members of other types': { return: { version: {}, supported_commands: 'all' } },
    'too many entries': {
      return: {
        version: '1',
        supported_commands: Array.from({ length: 1000 }, () => ({ name: 'x', enabled: true })),
      },
    },
  };
  it.each(Object.keys(lies))('%s is no answer', async (name) => {
    await start(instead((_message, line) => reply(line, lies[name])));
    await expect(client.info(never())).rejects.toMatchObject({ class: 'Unavailable' });
    agent.behaviour = healthy(answers);
    await client.ping(never());
  });

  const bytes: Readonly<Record<string, (line: Parameters<Behaviour>[1]) => void>> = {
    'half of one': (line) => void line.end('{"return": {'),
    'deep nesting': (line) => void line.write('['.repeat(100_000)),
    'a hundred megabytes': (line) => {
      const chunk = Buffer.alloc(1024 * 1024, 0x61);
      line.write('{"return": "');
      const more = (left: number): void => {
        if (left > 0 && !line.destroyed) line.write(chunk, () => more(left - 1));
      };
      more(100);
    },
    'not text': (line) => void line.write(Buffer.from([0x7b, 0xc3, 0x28, 0x7d, 0x0a])),
    'the end of the line': (line) => line.destroy(),
  };
  it.each(Object.keys(bytes))('%s ends the call, and the next one starts anew', async (name) => {
    await start(instead((_message, line) => bytes[name]?.(line)));
    await expect(client.info(never())).rejects.toMatchObject({ class: 'Unavailable' });
    agent.behaviour = healthy(answers);
    expect(await client.info(never())).toEqual({ version: '7.2.22', supportedCommands: ['guest-ping'] });
  });

  it('about a sync is not believed', async () => {
    await start((message, line) => {
      if (message.execute.startsWith('guest-sync'))
        reply(line, { return: Number(message.arguments['id']) + 1 });
      else healthy(answers)(message, line);
    });
    await givenUp((signal) => client.ping(signal), 'guest-sync-delimited');
    expect(agent.asked).not.toContain('guest-ping');
  });

  it('by saying an answer twice is not believed the second time', async () => {
    await start(
      instead((_message, line) => {
        reply(line, { return: {} });
        reply(line, { return: {} });
      }),
    );
    await client.ping(never());
    agent.behaviour = healthy(answers);
    await client.info(never());
    expect(agent.asked.filter((command) => command.startsWith('guest-sync'))).toHaveLength(2);
  });

  it('about the bytes of a file is found out', async () => {
    const file = { count: 100, 'buf-b64': Buffer.from('four').toString('base64'), eof: false };
    await start(healthy({ 'guest-file-read': file, 'guest-file-write': { count: 5 } }));
    await expect(client.readFile(1, 100, never())).rejects.toMatchObject({ class: 'Unavailable' });
    await expect(client.writeFile(1, Buffer.from('four'), never())).rejects.toMatchObject({
      class: 'Unavailable',
    });
  });

  it('about its addresses tells none that are none', async () => {
    const address = (text: string, type: string, prefix: number): object => ({
      'ip-address': text,
      'ip-address-type': type,
      prefix,
    });
    const reported = [
      {
        name: 'eth0\u001b[2J',
        'hardware-address': '52:54:00:AA:00:01',
        'ip-addresses': [
          address('10.0.0.2', 'ipv4', 24),
          address('10.0.0.3', 'ipv4', 99),
          address('$(reboot)', 'ipv4', 24),
          address('10.0.0.4', 'ipv6', 64),
          address('fe80::1', 'ipv6', 64),
        ],
      },
      { name: 'tun0', 'hardware-address': 'no' },
    ];
    await start(healthy({ 'guest-network-get-interfaces': reported }));
    expect(await client.interfaces(never())).toEqual([
      {
        name: 'eth0 [2J',
        hardwareAddress: '52:54:00:aa:00:01',
        ipAddresses: [
          { ipAddress: '10.0.0.2', ipAddressType: 'ipv4', prefix: 24 },
          { ipAddress: 'fe80::1', ipAddressType: 'ipv6', prefix: 64 },
        ],
      },
      { name: 'tun0', ipAddresses: [] },
    ]);
  });
});

describe('an agent that talks without being asked', () => {
  it('loses its line, and so its listener', async () => {
    await start();
    await client.ping(never());
    agent.say('{"return": {}}\n');
    await agent.until(() => agent.connections === 0);
    await client.ping(never());
    expect(agent.asked.filter((command) => command.startsWith('guest-sync'))).toHaveLength(2);
  });

  it('before a sync is not heard', async () => {
    await start((message, line) => {
      if (message.execute.startsWith('guest-sync')) line.write('{"return": {"half": "of an answer');
      healthy(answers)(message, line);
    });
    expect((await client.info(never())).version).toBe('7.2.22');
  });
});

it('no bytes whatever make a call throw anything but an error of the contract, or stay', async () => {
  await start();
  const junk = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array)),
    fc.json().map((text) => Buffer.from(`${text}\n`)),
    fc.json().map((text) => Buffer.from(`{"return": ${text}}\n`)),
    fc.constant(Buffer.from([0xff])),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(junk, { maxLength: 6 }), async (parts) => {
      agent.behaviour = instead((_message, line) => {
        for (const part of parts) line.write(part);
        line.end();
      });
      const outcome = await client.info(never()).catch((error: unknown) => error);
      expect((outcome as { class?: string }).class).toBe('Unavailable');
      agent.behaviour = healthy(answers);
      await client.ping(never());
    }),
    { numRuns: 150 },
  );
});

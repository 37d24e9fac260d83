/** The wire of a whole daemon: its own socket, every command, and whatever else comes in. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { JsonValueReader } from '../../../lib/json-values.ts';
import { type CommandName, commandNames, findCommand } from '../../../protocol/commands.ts';
import { errorClass } from '../../../protocol/errors.ts';
import { aGuest, type FakeDaemon, fakeHouse } from '../fake-house.ts';
import type { Message } from './fake-carrier.ts';

/** A client that sends bytes and keeps what comes back. */
class RawClient {
  readonly received: Message[] = [];
  readonly socket: Socket;
  #wake: (() => void)[] = [];

  private constructor(path: string) {
    this.socket = createConnection(path);
    const reader = new JsonValueReader();
    this.socket.on('data', (chunk: Buffer) => {
      for (const result of reader.push(chunk)) {
        if (result.kind === 'error') throw new Error(`The daemon sent no JSON: ${result.message}`);
        this.received.push(result.value as Message);
      }
      for (const wake of this.#wake.splice(0)) wake();
    });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => {
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  static async connect(path: string): Promise<RawClient> {
    const client = new RawClient(path);
    onTestFinished(async () => {
      if (client.socket.destroyed) return;
      client.socket.destroy();
      await once(client.socket, 'close');
    });
    await client.until((messages) => messages.some(({ QMP }) => QMP !== undefined));
    return client;
  }

  async until(isThere: (messages: readonly Message[]) => boolean): Promise<void> {
    while (!isThere(this.received)) {
      if (this.socket.closed) throw new Error('The daemon closed the connection');
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** Sends bytes, and after them a question that only a living daemon answers; gives what came back before its answer. */
  async exchange(bytes: Buffer | string, mark: string): Promise<Message[]> {
    const from = this.received.length;
    this.socket.write(bytes);
    // Byte 0xFF ends whatever was begun, as in QEMU's own parser.
    this.socket.write(
      Buffer.concat([Buffer.from([0xff]), Buffer.from(`\n{"execute":"query-version","id":"${mark}"}\n`)]),
    );
    await this.until((messages) => messages.some(({ id }) => id === mark));
    return this.received.slice(from).filter(({ id, event }) => id !== mark && event === undefined);
  }
}

const isQmpReply = (message: Message): boolean => {
  const members = Object.keys(message).filter((member) => member !== 'id');
  if (members.length !== 1) return false;
  if (members[0] === 'return') return true;
  const { error } = message;
  return (
    members[0] === 'error' &&
    errorClass.safeParse(error?.class).success &&
    typeof error?.desc === 'string' &&
    error.desc !== ''
  );
};

describe('every command', () => {
  test('has a handler: none is an Internal error, whatever its arguments', async () => {
    const daemon = await (await fakeHouse()).start();
    const client = await RawClient.connect(daemon.daemon.socketPath);
    await client.exchange('{"execute":"qmp_capabilities"}', 'ready');
    for (const name of commandNames.filter((each) => each !== 'qmp_capabilities')) {
      const [reply] = await client.exchange(JSON.stringify({ execute: name }), `after ${name}`);
      expect(reply).toSatisfy(isQmpReply);
      expect(['Internal', 'CommandNotFound']).not.toContain(reply?.error?.class);
    }
  });

  test('answers as it declares', async () => {
    const daemon = await (await fakeHouse()).start();
    const { client } = daemon;
    await client.done('network-create', { name: 'lan' });
    await client.done('guest-create', aGuest('web1', { start: true, nics: [{ network: 'lan' }] }));
    const queries: readonly (readonly [CommandName, object])[] = [
      ['query-version', {}],
      ['query-commands', {}],
      ['query-schema', {}],
      ['query-schema', { name: 'guest-create' }],
      ['query-events', {}],
      ['query-events', { guests: ['web1'], limit: 2 }],
      ['query-tokens', {}],
      ['query-host', {}],
      ['query-daemon', {}],
      ['query-pools', {}],
      ['query-guests', {}],
      ['query-guest', { guest: 'web1' }],
      ['query-guest-log', { guest: 'web1' }],
      ['guest-plan', { guest: 'web1' }],
      ['query-operations', {}],
      ['query-images', {}],
      ['query-networks', {}],
      ['token-create', { name: 'ci', role: 'read' }],
      ['token-revoke', { name: 'ci' }],
    ];
    for (const [name, args] of queries) {
      const answer = await client.call(name, args);
      const checked = findCommand(name)?.returns.safeParse(answer);
      expect({ name, ...checked }).toEqual({ name, success: true, data: answer });
    }
  });

  test('and every event is as it declares', async () => {
    const { events } = await import('../../../protocol/events.ts');
    const daemon = await (await fakeHouse()).start();
    const { client } = daemon;
    await client.done('guest-create', aGuest('web1', { start: true }));
    await client.done('guest-reset', { guest: 'web1' });
    await client.done('guest-update', { guest: 'web1', description: 'x' });
    await client.done('guest-stop', { guest: 'web1' });
    await client.done('guest-delete', { guest: 'web1' });
    await client.waitForEvent(({ event }) => event === 'GUEST_DELETED');
    const wrong = client.events.filter(({ event, data }) => !events[event].data.safeParse(data).success);
    expect(wrong).toEqual([]);
    expect(new Set(client.events.map(({ event }) => event)).size).toBeGreaterThan(6);
  });
});

describe('what is no good', () => {
  test.each([
    ['an unknown command, with the nearest name', { execute: 'query-guest-s' }, 'CommandNotFound'],
    [
      'an unknown argument',
      { execute: 'guest-start', arguments: { guest: 'web1', turbo: true } },
      'InvalidArgument',
    ],
    ['an argument of a wrong type', { execute: 'guest-start', arguments: { guest: 5 } }, 'InvalidArgument'],
    ['a missing argument', { execute: 'guest-start' }, 'InvalidArgument'],
    [
      'an argument with a name of the language',
      '{"execute":"query-guests","arguments":{"__proto__":{"limit":1}}}',
      'InvalidArgument',
    ],
    ['an unknown guest', { execute: 'guest-start', arguments: { guest: 'nobody' } }, 'NotFound'],
    ['a member QMP does not have', { execute: 'query-version', verbose: true }, 'InvalidArgument'],
    ['an array', [1, 2], 'InvalidArgument'],
    ['a number', 5, 'InvalidArgument'],
  ])('%s is refused, and nothing else happens', async (_what, value, expected) => {
    const daemon = await (await fakeHouse()).start();
    await daemon.client.done('guest-create', aGuest('web1'));
    const { lastEventSequence } = await daemon.client.call('query-daemon', {});
    const client = await RawClient.connect(daemon.daemon.socketPath);
    await client.exchange('{"execute":"qmp_capabilities"}', 'ready');
    const replies = await client.exchange(
      `${typeof value === 'string' ? value : JSON.stringify(value)}\n`,
      'after',
    );
    expect(replies.map(({ error }) => error?.class)).toEqual([expected]);
    expect(await daemon.client.call('query-daemon', {})).toMatchObject({ lastEventSequence });
  });

  test('a value over 1 MiB is refused without being kept, and the next one is served', async () => {
    const daemon = await (await fakeHouse()).start();
    const client = await RawClient.connect(daemon.daemon.socketPath);
    await client.exchange('{"execute":"qmp_capabilities"}', 'ready');
    const replies = await client.exchange(`{"execute":"${'x'.repeat(3 * 1024 * 1024)}"}`, 'after');
    expect(replies.map(({ error }) => error?.class)).toEqual(['InvalidArgument']);
  });
});

// Frames: values as a client might send them, nearly right, and then cut, doubled, flipped and glued together.
const names = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...commandNames.filter((name) => name !== 'guest-console')) },
  { weight: 1, arbitrary: fc.string() },
);
const argument = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom('web1', 'lan', 'fake', 'q35', '__proto__', '', -1, 2 ** 53, 1e308, null, {}, []),
);
const member = fc.constantFrom(
  'guest',
  'name',
  'names',
  'force',
  'timeoutMs',
  'limit',
  'after',
  'since',
  'events',
  'memoryBytes',
  'disks',
  'nics',
  'operation',
  'idempotencyKey',
  'driver',
  'nameGlob',
  'fields',
  '__proto__',
  'constructor',
  'toString',
  'x',
);
const request = fc.record(
  {
    execute: fc.oneof({ weight: 9, arbitrary: names }, { weight: 1, arbitrary: argument }),
    arguments: fc.oneof(
      { weight: 9, arbitrary: fc.dictionary(member, argument, { maxKeys: 4 }) },
      { weight: 1, arbitrary: argument },
    ),
    id: fc.jsonValue({ maxDepth: 2 }),
  },
  { requiredKeys: ['execute'] },
);
const frame = fc.oneof(
  { weight: 5, arbitrary: request.map((value) => Buffer.from(JSON.stringify(value))) },
  { weight: 1, arbitrary: fc.json().map((text) => Buffer.from(text)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
);
type Mutation = readonly ['cut' | 'double' | 'flip' | 'insert', number, number];
const mutation: fc.Arbitrary<Mutation> = fc.tuple(
  fc.constantFrom('cut' as const, 'double' as const, 'flip' as const, 'insert' as const),
  fc.nat(),
  fc.nat(255),
);
const mutate = (bytes: Buffer, [how, where, byte]: Mutation): Buffer => {
  if (bytes.length === 0) return bytes;
  const at = where % bytes.length;
  const head = bytes.subarray(0, at);
  switch (how) {
    case 'cut':
      return head;
    case 'double':
      return Buffer.concat([bytes, bytes.subarray(at)]);
    case 'flip':
      return Buffer.concat([head, Buffer.from([(bytes[at] ?? 0) ^ (byte || 1)]), bytes.subarray(at + 1)]);
    case 'insert':
      return Buffer.concat([head, Buffer.from([byte]), bytes.subarray(at)]);
  }
};
const batch = fc.array(
  fc
    .tuple(frame, fc.array(mutation, { maxLength: 2 }))
    .map(([bytes, mutations]) => mutations.reduce(mutate, bytes)),
  { minLength: 1, maxLength: 20 },
);

describe('whatever comes in', () => {
  test('the daemon lives, and each of its answers is one that QMP knows', async () => {
    const daemon = await (await fakeHouse()).start();
    await daemon.client.done('guest-create', aGuest('web1', { start: true, deleteProtection: true }));
    const client = await RawClient.connect(daemon.daemon.socketPath);
    await client.exchange('{"execute":"qmp_capabilities"}', 'ready');
    let count = 0;
    await fc.assert(
      fc.asyncProperty(batch, async (frames) => {
        count += 1;
        const replies = await client.exchange(Buffer.concat(frames), `mark ${count}`);
        for (const reply of replies) {
          expect(reply).toSatisfy(isQmpReply);
          expect(reply).not.toMatchObject({ error: { class: 'Internal' } });
        }
      }),
      { numRuns: 300 },
    );
    expect((await daemon.client.call('query-guest', { guest: 'web1' })).name).toBe('web1');
  });

  test('a request is answered once, with its id, however its bytes are cut', async () => {
    const daemon = await (await fakeHouse()).start();
    const client = await RawClient.connect(daemon.daemon.socketPath);
    await client.exchange('{"execute":"qmp_capabilities"}', 'ready');
    let count = 0;
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.array(fc.nat(60), { maxLength: 5 }), async (id, cuts) => {
        count += 1;
        const bytes = Buffer.from(JSON.stringify({ execute: 'query-version', id }));
        const places = [...new Set([0, ...cuts.map((cut) => cut % bytes.length), bytes.length])].sort(
          (a, b) => a - b,
        );
        for (const [index, place] of places.slice(0, -1).entries())
          client.socket.write(bytes.subarray(place, places[index + 1]));
        const replies = await client.exchange('', `cut ${count}`);
        expect(replies).toEqual([{ return: expect.any(Object), id: JSON.parse(JSON.stringify(id)) }]);
      }),
      { numRuns: 100 },
    );
  });
});

describe('lists', () => {
  const fill = async ({ client }: FakeDaemon, count: number): Promise<string[]> => {
    const guests = Array.from({ length: count }, (_, n) => `g${String(n).padStart(4, '0')}`);
    await Promise.all(
      guests.map((name, n) =>
        client.done('guest-create', aGuest(name, { labels: { parity: n % 2 ? 'odd' : 'even' } })),
      ),
    );
    return guests;
  };

  test('of guests come in pages under 64 KiB that cover all of them once', async () => {
    const daemon = await (await fakeHouse()).start();
    const guests = await fill(daemon, 150);
    const seen: (string | undefined)[] = [];
    for (let after: string | undefined; ; ) {
      const page = await daemon.client.call('query-guests', after === undefined ? {} : { after });
      expect(Buffer.byteLength(JSON.stringify({ return: page }))).toBeLessThan(64 * 1024);
      expect(page.total).toBe(150);
      seen.push(...page.guests.map(({ name }) => name));
      after = page.next;
      if (after === undefined) break;
    }
    expect(seen).toEqual(guests);
  });

  test('are filtered by name, glob, state and label, and cut to the fields asked for', async () => {
    const daemon = await (await fakeHouse()).start();
    const { client } = daemon;
    await fill(daemon, 12);
    await client.done('guest-start', { guest: 'g0003' });
    const namesOf = async (filter: Parameters<typeof client.call<'query-guests'>>[1]): Promise<unknown> =>
      (await client.call('query-guests', { ...filter, fields: ['name'] })).guests;
    expect(await namesOf({ names: ['g0003', 'g0001', 'g0003'] })).toEqual([
      { name: 'g0001' },
      { name: 'g0003' },
    ]);
    expect(await namesOf({ nameGlob: '*1?' })).toEqual([{ name: 'g0010' }, { name: 'g0011' }]);
    expect(await namesOf({ states: ['running'] })).toEqual([{ name: 'g0003' }]);
    expect(await namesOf({ labels: { parity: 'odd' }, limit: 2 })).toEqual([
      { name: 'g0001' },
      { name: 'g0003' },
    ]);
    expect(await namesOf({ states: [] })).toEqual([]);
    await expect(client.call('query-guests', { names: ['nobody'] })).rejects.toMatchObject({
      class: 'NotFound',
    });
  });

  test('of images by name lose nothing on their pages, in whatever order they were asked for', async () => {
    const house = await fakeHouse();
    const { client } = await house.start();
    for (const name of ['a', 'b', 'c']) {
      house.images.offer(`/${name}`, 512);
      await client.done('image-import', { name, path: `/${name}` });
    }
    const first = await client.call('query-images', { names: ['c', 'a', 'b', 'a'], limit: 2 });
    expect(first.images.map(({ name }) => name)).toEqual(['a', 'b']);
    const second = await client.call('query-images', {
      names: ['c', 'a', 'b'],
      limit: 2,
      after: first.next ?? '',
    });
    expect(second.images.map(({ name }) => name)).toEqual(['c']);
  });

  test('of operations and events cover all of them once', async () => {
    const daemon = await (await fakeHouse()).start();
    const { client } = daemon;
    await fill(daemon, 120);
    const operations: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await client.call('query-operations', after === undefined ? {} : { after });
      operations.push(...page.operations.map(({ id }) => id));
      after = page.next;
      if (after === undefined) break;
    }
    expect(new Set(operations).size).toBe(120);
    expect(operations).toHaveLength(120);
    const sequences: number[] = [];
    for (let since: number | undefined = 0; since !== undefined; ) {
      const page: Awaited<ReturnType<typeof client.call<'query-events'>>> = await client.call(
        'query-events',
        { since },
      );
      sequences.push(...page.events.map(({ sequence }) => sequence));
      since = page.next;
    }
    expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
    expect(new Set(sequences).size).toBe(sequences.length);
    expect(sequences.length).toBe(120);
  });
});

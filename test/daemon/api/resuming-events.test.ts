/**
 * Events reach a client in the order of their sequence, each once, over the socket and over WebSocket: after a restart of
 * the daemon, and when the client reads too slowly; what is missing is told to the very number.
 */
import { once } from 'node:events';
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createWebSocketStream, WebSocket } from 'ws';
import { JsonValueReader } from '../../../lib/json-values.ts';
import { eventNames } from '../../../protocol/events.ts';
import { aGuest, type FakeDaemon, type FakeHouse, fakeHouse } from '../fake-house.ts';
import type { Message } from './fake-carrier.ts';

/** A client that can stop reading. */
class Reader {
  readonly received: Message[] = [];
  readonly #stream: Duplex;
  #wake: (() => void)[] = [];
  #calls = 0;

  constructor(stream: Duplex) {
    this.#stream = stream;
    const reader = new JsonValueReader();
    stream.on('error', () => undefined);
    stream.on('data', (chunk: Buffer) => {
      for (const result of reader.push(chunk)) {
        if (result.kind === 'error') throw new Error(result.message);
        this.received.push(result.value as Message);
      }
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  async find(fits: (message: Message) => boolean): Promise<Message> {
    for (let at = 0; ; at += 1) {
      while (at >= this.received.length) await new Promise<void>((resolve) => this.#wake.push(resolve));
      const message = this.received[at];
      if (message && fits(message)) return message;
    }
  }

  async call(execute: string, args: object = {}): Promise<Message> {
    this.#calls += 1;
    const id = this.#calls;
    this.#stream.write(JSON.stringify({ execute, arguments: args, id }));
    return await this.find((message) => message.id === id);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Sequences of the events, in the order in which they came; those told as lost as `from-to`. */
  get story(): readonly (number | string)[] {
    return this.received.filter(({ event }) => event !== undefined).map(placeOf);
  }
}

const placeOf = ({ event, sequence = 0, data }: Message): number | string =>
  event === 'EVENTS_LOST' ? `${String(data?.['from'])}-${String(data?.['to'])}` : sequence;

const bySocket = async ({ daemon }: FakeDaemon): Promise<Duplex> => createConnection(daemon.socketPath);

const byWebSocket = async ({ daemon, client }: FakeDaemon): Promise<Duplex> => {
  const name = `reader-${String(await client.call('query-tokens', {}).then(({ tokens }) => tokens.length))}`;
  const { token } = await client.call('token-create', { name, role: 'read' });
  const socket = new WebSocket(`ws://127.0.0.1:${daemon.webSocketPort}/v1`, {
    headers: { authorization: `Bearer ${token}` },
  });
  // A message is a value; a stream of values needs nothing between them. Strings stay strings: bytes are of consoles.
  const stream = createWebSocketStream(socket, { decodeStrings: false });
  await once(socket, 'open');
  return stream;
};

const connect = async (stream: Duplex): Promise<Reader> => {
  const reader = new Reader(stream);
  onTestFinished(() => void stream.destroy());
  await reader.find(({ QMP }) => QMP !== undefined);
  await reader.call('qmp_capabilities');
  return reader;
};

const start = (house: FakeHouse): Promise<FakeDaemon> => house.start({ webSocketPort: 0 });

/** Numbers from one to another, both included. */
const numbers = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

const newest = ({ daemon }: FakeDaemon): number => daemon.inventory.events.bounds().newest;

describe.each([
  ['the socket', bySocket],
  ['WebSocket', byWebSocket],
] as const)('over %s', (_name, open) => {
  test('events go on behind a sequence after a restart of the daemon, none missing and none twice', async () => {
    const house = await fakeHouse();
    const before = await start(house);
    const first = await connect(await open(before));
    const since = newest(before);
    await first.call('events-subscribe', { events: [...eventNames], since });
    await before.client.done('guest-create', aGuest('web1', { start: true }));
    const last = newest(before);
    await first.find(({ sequence }) => sequence === last);
    expect(first.story).toEqual(numbers(since + 1, last));
    await before.client.done('guest-update', { guest: 'web1', description: 'unseen' });
    await before.stop();

    const after = await start(house);
    const second = await connect(await open(after));
    await second.call('events-subscribe', { events: [...eventNames], since: last });
    await after.client.done('guest-stop', { guest: 'web1', force: true });
    const end = newest(after);
    await second.find(({ sequence }) => sequence === end);
    expect(second.story).toEqual(numbers(last + 1, end));
  });

  test('a client that does not read is told exactly what it missed for good, and gets the rest', async () => {
    const house = await fakeHouse();
    const daemon = await start(house);
    const id = await daemon.client.done('guest-create', aGuest('web1', { start: true }));
    const reader = await connect(await open(daemon));
    const since = newest(daemon);
    await reader.call('events-subscribe', { events: [...eventNames], since });
    reader.pause();
    const tell = async (count: number): Promise<void> => {
      for (let each = 0; each < count; each += 1) {
        house.clock.advance(1000);
        house.host.host.emit(id as never, 'LOUD', { noise: 'x'.repeat(100_000) });
        const told = newest(daemon) + 1;
        await daemon.client.waitForEvent(({ sequence }) => sequence >= told);
      }
    };
    // More than every buffer on the way holds.
    await tell(60);
    const kept = newest(daemon) - 3;
    daemon.daemon.inventory.db.sqlite.exec(`DELETE FROM event WHERE sequence < ${kept}`);
    reader.resume();
    const end = newest(daemon);
    await reader.find(({ sequence }) => sequence === end);
    const lost = reader.story.filter((each) => typeof each === 'string');
    expect(lost).toHaveLength(1);
    const from = Number(lost[0]?.split('-')[0]);
    expect(from).toBeGreaterThan(since + 1);
    expect(reader.story).toEqual([
      ...numbers(since + 1, from - 1),
      `${from}-${kept - 1}`,
      ...numbers(kept, end),
    ]);
  });
});

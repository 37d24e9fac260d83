/**
 * Generated frames against the socket and the WebSocket of a daemon over a pretended host, where they may ask for
 * everything. It does not fall, its memory does not grow, and whatever it answers is QMP: an envelope of the right form,
 * and in it what the contract promises for that command.
 */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { type Deferred, deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import { JsonValueReader } from '../../lib/json-values.ts';
import { type CommandName, findCommand } from '../../protocol/commands.ts';
import { wireError } from '../../protocol/errors.ts';
import { eventView } from '../../protocol/events.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { MAX_VALUE_BYTES } from '../../protocol/wire.ts';
import { testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { type Frame, FrameMaker } from './frames.ts';
import { Random } from './random.ts';
import { figure, isLong, progress, seededRandom, sized, timeoutMs } from './scale.ts';
import { keepingOf, type Look, lookText, storyOf, trendOf } from './steady-state.ts';

/** Frames on their way before their answers are waited for. */
const BATCH = 500;
/** Each begins with new connections and ends with a look at what the daemon keeps. */
const ROUNDS = 40;
/** A frame without an answer for so long is never answered; those that wait do so for milliseconds. */
const STUCK_MS = 60_000;
/** What a frame may add to the heap in the trend; in the short form code is compiled all the time. A small object is more. */
const ALLOWED_BYTES_A_FRAME = isLong ? 4 : 250;

const id = { id: z.unknown().optional() };
const answerSchema = z.union([
  z.strictObject({ return: z.unknown(), ...id }),
  z.strictObject({ error: wireError, ...id }),
  eventView,
  z.strictObject({ QMP: z.unknown() }),
]);

/** What a connection has heard, checked as it comes. */
class Ear {
  /** Complaints, a few of them. */
  readonly wrong: string[] = [];
  readonly counts = { answers: 0, errors: 0, events: 0, accepted: 0 };
  readonly #expected = new Map<string, CommandName | undefined>();
  #marker: { readonly id: string; readonly reached: Deferred<void> } | undefined;
  #settled: Deferred<void> | undefined;

  expect({ id, command }: Frame): void {
    if (id !== undefined) this.#expected.set(id, command);
  }

  /** Resolves when the answer to a request with this id has come. */
  until(marker: string): Promise<void> {
    this.#marker = { id: marker, reached: deferred<void>() };
    return this.#marker.reached.promise;
  }

  /** Resolves when every frame that was one value has its answer; those that wait come later than what was sent after. */
  async settled(): Promise<void> {
    if (this.#expected.size === 0) return;
    this.#settled = deferred<void>();
    using limit = deadline(STUCK_MS);
    await waitOrAbort(this.#settled.promise, limit.signal).catch((error: unknown) => {
      throw new Error(`Without an answer: ${JSON.stringify([...this.#expected])}`, { cause: error });
    });
  }

  hear(value: unknown): void {
    const parsed = answerSchema.safeParse(value);
    if (!parsed.success) this.#complain('is no answer', value);
    const answer = value as { return?: unknown; error?: { class?: string }; id?: unknown };
    if (answer.error?.class === 'Internal') this.#complain('is a defect', value);
    if ('error' in answer) this.counts.errors += 1;
    else if (!('return' in answer)) {
      this.counts.events += 1;
      return;
    }
    this.counts.answers += 1;
    if (typeof answer.id === 'string') this.#check(answer.id, answer, value);
  }

  #check(id: string, answer: object, value: unknown): void {
    if (id === this.#marker?.id) this.#marker.reached.resolve();
    const command = this.#expected.get(id);
    if (!this.#expected.delete(id)) return;
    if (this.#expected.size === 0) this.#settled?.resolve();
    if (command === undefined || !('return' in answer)) return;
    if (findCommand(command)?.nature === 'change') this.counts.accepted += 1;
    const returned = findCommand(command)?.returns.safeParse(answer.return);
    if (returned?.success !== true) this.#complain(`is no answer to ${command}`, value);
  }

  lost(error: Error): void {
    this.#marker?.reached.reject(error);
    this.#settled?.reject(error);
  }

  #complain(what: string, value: unknown): void {
    if (this.wrong.length < 5) this.wrong.push(`${JSON.stringify(value).slice(0, 500)} ${what}`);
  }
}

interface Line {
  readonly ear: Ear;
  send(frame: Frame): void;
  /** Whatever was sent before, the next value is read as one. */
  resynchronize(): void;
  close(): void;
}

const openSocketLine = async (path: string): Promise<Line> => {
  const ear = new Ear();
  const reader = new JsonValueReader({ maxValueBytes: 64 * 1024 * 1024 });
  const socket: Socket = connectSocket(path);
  socket.on('error', (error) => ear.lost(error));
  socket.on('close', () => ear.lost(new Error('the daemon closed the socket')));
  socket.on('data', (chunk: Buffer) => {
    for (const result of reader.push(chunk))
      ear.hear(result.kind === 'value' ? result.value : { unreadable: result.message });
  });
  const negotiated = ear.until('negotiate');
  socket.write('{"execute":"qmp_capabilities","id":"negotiate"}');
  await negotiated;
  return {
    ear,
    send: ({ bytes }) => void socket.write(bytes),
    // A line end closes what was a string, 0xFF whatever else was open; see lib/json-values.ts.
    resynchronize: () => void socket.write(Buffer.from([0x0a, 0xff, 0x0a])),
    close: () => socket.destroy(),
  };
};

const openWebSocketLine = async (url: string, token: string): Promise<Line> => {
  const ear = new Ear();
  const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } });
  const open = deferred<void>();
  socket.on('open', open.resolve);
  socket.on('error', (error) => {
    open.reject(error);
    ear.lost(error);
  });
  socket.on('close', () => ear.lost(new Error('the daemon closed the WebSocket')));
  socket.on('message', (data: Buffer) => ear.hear(JSON.parse(data.toString('utf8'))));
  await open.promise;
  const negotiated = ear.until('negotiate');
  socket.send('{"execute":"qmp_capabilities","id":"negotiate"}');
  await negotiated;
  return {
    ear,
    // As text, and not too long: what is no UTF-8 or too long closes the connection by RFC 6455, which is another test.
    send: ({ bytes }) => {
      if (bytes.length <= MAX_VALUE_BYTES) socket.send(bytes.toString('utf8'));
    },
    resynchronize: () => undefined,
    close: () => socket.terminate(),
  };
};

/** Sends a batch and a last request, and waits for all that has an answer. */
const exchange = async (line: Line, frames: readonly Frame[]): Promise<void> => {
  for (const frame of frames) {
    line.ear.expect(frame);
    line.send(frame);
    // A mutation may leave something open; an unharmed frame is never part of it.
    if (frame.id === undefined) line.resynchronize();
  }
  const answered = line.ear.until('marker');
  line.send({ bytes: Buffer.from('{"execute":"query-version","id":"marker"}') });
  using limit = deadline(STUCK_MS);
  await waitOrAbort(answered, limit.signal).catch((error: unknown) => {
    const sent = frames.map(({ bytes }) => bytes.toString().slice(0, 300));
    throw new Error(`Stuck after:\n${sent.join('\n')}`, { cause: error });
  });
  await line.ear.settled();
};

/** One kind of line, with frames of its own that the seed repeats. */
class Feed {
  readonly counts = { answers: 0, errors: 0, events: 0, accepted: 0 };
  readonly #open: () => Promise<Line>;
  readonly #random: Random;
  readonly #maker: FrameMaker;

  constructor(open: () => Promise<Line>, seed: number) {
    this.#open = open;
    this.#random = new Random(seed);
    this.#maker = new FrameMaker(this.#random);
  }

  /** Sends so many frames over a new line, and gives what was wrong with the answers. */
  async send(count: number): Promise<readonly string[]> {
    const line = await this.#open();
    const { ear } = line;
    for (let sent = 0; sent < count && ear.wrong.length === 0; sent += BATCH)
      await exchange(
        line,
        Array.from({ length: BATCH }, () => this.#frame()),
      );
    line.close();
    for (const name of ['answers', 'errors', 'events', 'accepted'] as const)
      this.counts[name] += ear.counts[name];
    return ear.wrong;
  }

  #frame(): Frame {
    return this.#random.chance(0.6) ? this.#maker.value() : this.#maker.mutated();
  }
}

/** A port of loopback that is free at this moment. */
const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (typeof address !== 'object' || address === null) throw new Error('the server has no port');
  return address.port;
};

const report = (sent: number, feeds: readonly Feed[], looks: readonly Look[], seconds: number): void => {
  const sum = (name: keyof Feed['counts']): number =>
    feeds.reduce((total, { counts }) => total + counts[name], 0);
  figure('frames', sent);
  figure('frames: answers', sum('answers'));
  figure('frames: of them errors', sum('errors'));
  figure('frames: of them accepted operations', sum('accepted'));
  figure('frames: events heard beside them', sum('events'));
  figure('frames: MiB of heap at 1/4, 1/2, 3/4, 1', storyOf(looks));
  figure('frames: bytes of heap a frame, trend of the later half', trendOf(looks).toFixed(2));
  figure('frames: seconds', Math.round(seconds));
};

describe('generated frames', () => {
  it('get answers of QMP, and leave the daemon as it was', { timeout: timeoutMs }, async () => {
    const total = sized({ short: 16_000, long: 1_000_000 });
    const { seed } = seededRandom();
    const home = await testDaemonHome({ ownNamespace: false, onFakes: true });
    const directory = await testDirectory();
    const [configPath, keepingPath, imagePath] = ['roostd.yaml', 'keeping', 'web.raw'].map((name) =>
      join(directory, name),
    ) as [string, string, string];
    const port = await freePort();
    await writeFile(
      configPath,
      `websocket: {listen: '127.0.0.1:${port}'}\nevents: {keepBytes: ${MEBIBYTE}}\n`,
    );
    const daemon = await home.start({
      args: ['--config', configPath],
      onFakes: { keepingPath, imagePath },
    });
    await daemon.succeed('image-import', { name: 'web', path: imagePath, format: 'raw' });
    const { token } = await daemon.client.call('token-create', { name: 'torture', role: 'admin' });
    const feeds = [
      new Feed(() => openSocketLine(join(home.runDirectory, 'roost.sock')), seed),
      new Feed(() => openWebSocketLine(`ws://127.0.0.1:${port}/v1`, token), seed + 1),
    ];
    const looks: Look[] = [];
    const begun = performance.now();
    const share = Math.ceil(total / ROUNDS / feeds.length / BATCH) * BATCH;
    for (let sent = 0; sent < total; ) {
      const wrong = await Promise.all(feeds.map((feed) => feed.send(share)));
      expect({ seed, sent, wrong: wrong.flat() }).toEqual({ seed, sent, wrong: [] });
      sent += share * feeds.length;
      const look = { done: sent, ...(await keepingOf(keepingPath)) };
      looks.push(look);
      progress(`${sent} of ${total} frames, ${lookText(look)}`);
    }
    report(looks.at(-1)?.done ?? 0, feeds, looks, (performance.now() - begun) / 1000);
    expect(trendOf(looks)).toBeLessThan(ALLOWED_BYTES_A_FRAME);
    // A look may find the connections of its round still closing.
    const later = looks.slice(looks.length / 2).map(({ descriptors }) => descriptors);
    expect(Math.max(...later) - Math.min(...later)).toBeLessThanOrEqual(feeds.length);
    expect(daemon.log()).not.toMatch(/unexpectedly|without an owner/);
    await daemon.stop();
  });
});

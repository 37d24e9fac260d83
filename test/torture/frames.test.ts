/**
 * Generated frames against the socket and the WebSocket of a whole daemon. It does not fall, its memory does not grow,
 * and whatever it answers is QMP: an envelope of the right form, and in it what the contract promises for that command.
 */
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { type Deferred, deferred } from '../../lib/abort.ts';
import { JsonValueReader } from '../../lib/json-values.ts';
import { type CommandName, findCommand } from '../../protocol/commands.ts';
import { wireError } from '../../protocol/errors.ts';
import { eventView } from '../../protocol/events.ts';
import { MAX_VALUE_BYTES } from '../../protocol/wire.ts';
import { describeWith } from '../harness/needs.ts';
import { testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { type Frame, FrameMaker } from './frames.ts';
import { figure, progress, seededRandom, sized, timeoutMs } from './scale.ts';

/** Frames on their way before their answers are waited for. */
const BATCH = 200;
/** What a heap may grow by while it finds its size; a leak of a hundred bytes a frame is more. */
const ALLOWED_GROWTH_BYTES = 48 * 1024 * 1024;

const id = { id: z.json().optional() };
const answerSchema = z.union([
  z.strictObject({ return: z.json(), ...id }),
  z.strictObject({ error: wireError, ...id }),
  eventView,
  z.strictObject({ QMP: z.json() }),
]);

/** What a connection has heard, checked as it comes. */
class Ear {
  /** Complaints, a few of them. */
  readonly wrong: string[] = [];
  answers = 0;
  readonly #expected = new Map<string, CommandName | undefined>();
  #marker: { readonly id: string; readonly reached: Deferred<void> } | undefined;

  expect({ id, command }: Frame): void {
    if (id !== undefined) this.#expected.set(id, command);
  }

  /** Resolves when the answer to a request with this id has come. */
  until(marker: string): Promise<void> {
    this.#marker = { id: marker, reached: deferred<void>() };
    return this.#marker.reached.promise;
  }

  hear(value: unknown): void {
    const parsed = answerSchema.safeParse(value);
    if (!parsed.success) this.#complain('is no answer', value);
    const answer = value as { return?: unknown; error?: { class?: string }; id?: unknown };
    if (answer.error?.class === 'Internal') this.#complain('is a defect', value);
    if (!('return' in answer) && !('error' in answer)) return;
    this.answers += 1;
    if (typeof answer.id !== 'string') return;
    if (answer.id === this.#marker?.id) this.#marker.reached.resolve();
    const command = this.#expected.get(answer.id);
    if (!this.#expected.delete(answer.id) || command === undefined || !('return' in answer)) return;
    const returned = findCommand(command)?.returns.safeParse(answer.return);
    if (returned?.success !== true) this.#complain(`is no answer to ${command}`, value);
  }

  /** Frames that were one value and have no answer. */
  unanswered(): readonly string[] {
    const left = [...this.#expected.keys()];
    this.#expected.clear();
    return left;
  }

  lost(error: Error): void {
    this.#marker?.reached.reject(error);
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

/** Sends a batch and a last request, and waits for the answer to that one. */
const exchange = async (line: Line, frames: readonly Frame[], number: number): Promise<void> => {
  for (const frame of frames) {
    line.ear.expect(frame);
    line.send(frame);
    // A mutation may leave something open; an unharmed frame is never part of it.
    if (frame.id === undefined) line.resynchronize();
  }
  const marker = `marker-${number}`;
  const answered = line.ear.until(marker);
  line.send({ bytes: Buffer.from(JSON.stringify({ execute: 'query-version', id: marker })) });
  await answered;
};

const residentBytes = async (pid: number): Promise<number> => {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
};

const openDescriptors = async (pid: number): Promise<number> => (await readdir(`/proc/${pid}/fd`)).length;

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

describeWith(['qemu', 'qemu-img'], 'generated frames', () => {
  it('get answers of QMP, and leave the daemon as it was', { timeout: timeoutMs }, async () => {
    const total = sized({ short: 20_000, long: 1_000_000 });
    const random = seededRandom();
    const home = await testDaemonHome({ ownNamespace: false });
    const configPath = join(await testDirectory(), 'roostd.yaml');
    const port = await freePort();
    await writeFile(configPath, `websocket:\n  listen: 127.0.0.1:${port}\n`);
    const daemon = await home.start({ args: ['--config', configPath] });
    const { token } = await daemon.client.call('token-create', { name: 'torture', role: 'admin' });
    const lines = [
      await openSocketLine(join(home.runDirectory, 'roost.sock')),
      await openWebSocketLine(`ws://127.0.0.1:${port}/v1`, token),
    ];
    const maker = new FrameMaker(random);
    const memory: number[] = [];
    let descriptors = 0;
    let sent = 0;
    const begun = performance.now();
    for (let batch = 0; sent < total; batch += 1) {
      const line = lines[batch % lines.length];
      if (line === undefined) throw new Error('there is no line');
      const frames = Array.from({ length: BATCH }, () =>
        random.chance(0.6) ? maker.value() : maker.mutated(),
      );
      await exchange(line, frames, batch);
      sent += BATCH;
      const { wrong } = line.ear;
      expect({ seed: random.seed, batch, wrong, unanswered: line.ear.unanswered() }).toEqual({
        seed: random.seed,
        batch,
        wrong: [],
        unanswered: [],
      });
      if (sent >= ((memory.length + 1) * total) / 4) {
        memory.push(await residentBytes(daemon.pid));
        if (memory.length === 1) descriptors = await openDescriptors(daemon.pid);
        progress(`${sent} of ${total} frames, ${Math.round((memory.at(-1) ?? 0) / 2 ** 20)} MiB`);
      }
    }
    const growth = (memory.at(-1) ?? 0) - (memory[0] ?? 0);
    expect(growth).toBeLessThan(ALLOWED_GROWTH_BYTES);
    expect(await openDescriptors(daemon.pid)).toBe(descriptors);
    expect(daemon.log()).not.toMatch(/unexpectedly|without an owner/);
    figure('frames', sent);
    figure(
      'frames: answers',
      lines.reduce((sum, { ear }) => sum + ear.answers, 0),
    );
    figure(
      'frames: MiB resident at 1/4, 1/2, 3/4, 1',
      memory.map((bytes) => Math.round(bytes / 2 ** 20)).join(', '),
    );
    figure('frames: seconds', Math.round((performance.now() - begun) / 1000));
    for (const line of lines) line.close();
    await daemon.stop();
  });
});

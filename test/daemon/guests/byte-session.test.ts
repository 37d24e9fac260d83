/** What a connection carries of a program in a guest. */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ByteSession } from '../../../daemon/guests/byte-session.ts';
import type { ProgramEnd, ProgramLine } from '../../../drivers/driver.ts';
import { deferred } from '../../../lib/abort.ts';
import { ChannelFrameReader, encodeChannelFrame } from '../../../lib/channel-frames.ts';
import { silentLog } from '../../../lib/log.ts';
import { sessionChannels } from '../../../protocol/byte-session.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { ManualClock } from '../manual-clock.ts';

const SIGHUP = 1;

class FakeLine implements ProgramLine {
  readonly stdin: PassThrough | undefined = new PassThrough({ highWaterMark: 16 });
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  readonly end = deferred<ProgramEnd>();
  readonly ended = this.end.promise;
  readonly told: unknown[] = [];
  released = 0;

  readonly kill = async (number: number): Promise<void> => void this.told.push({ signal: number });
  readonly resize: ProgramLine['resize'] = async (size) => void this.told.push(size);
  readonly release = (): void => {
    this.released += 1;
    this.stdin?.end();
    for (const stream of [this.stdout, this.stderr]) stream.removeAllListeners('data').resume();
  };

  close(end: ProgramEnd): void {
    this.stdout.end();
    this.stderr.end();
    this.end.resolve(end);
  }
}

const begin = (hasTerminal = false) => {
  const line = new FakeLine();
  const clock = new ManualClock();
  const house = { clock, stopping: new AbortController().signal, log: silentLog() };
  return { line, clock, session: new ByteSession(line, hasTerminal, house) };
};

/** All frames until the session ends, in words. */
const frames = async (session: ByteSession): Promise<string[]> => {
  const reader = new ChannelFrameReader(65_536);
  const told: string[] = [];
  for await (const chunk of session)
    for (const { channel, payload } of reader.push(chunk as Buffer))
      told.push(`${channel} ${payload.toString()}`);
  expect(reader.isInFrame).toBe(false);
  return told;
};

const send = (session: ByteSession, channel: number, payload: string | Buffer): Promise<void> =>
  new Promise((resolve) => {
    session.write(encodeChannelFrame(channel, Buffer.from(payload)), () => resolve());
  });

describe('a session of bytes', () => {
  it('carries both outputs and ends with the exit code', async () => {
    const { line, session } = begin();
    const told = frames(session);
    line.stdout.write('out');
    line.stderr.write('err');
    line.close({ exitCode: 7 });
    expect((await told).toSorted()).toEqual(['1 out', '2 err', '3 {"exitCode":7}']);
    expect((await told).at(-1)).toBe('3 {"exitCode":7}');
  });

  it('tells the signal that ended the program, and that nobody knows its end', async () => {
    const { line, session } = begin();
    line.close({ signal: 9 });
    expect(await frames(session)).toEqual(['3 {"signal":9}']);
    const lost = begin();
    lost.line.end.reject(new RoostError('Unavailable', 'The agent is gone'));
    const [end = ''] = await frames(lost.session);
    expect(JSON.parse(end.slice(2))).toMatchObject({
      error: { class: 'Unavailable', desc: 'The agent is gone' },
    });
  });

  it('says why, and lets go, when the output of a program breaks off', async () => {
    const { line, session } = begin();
    const told = frames(session);
    line.stdout.destroy(new RoostError('Unavailable', 'too far behind'));
    const [end = ''] = await told;
    expect(JSON.parse(end.slice(2))).toMatchObject({ error: { desc: 'too far behind' } });
    expect(line.released).toBeGreaterThan(0);
  });

  it('waits for last words, but not for an output that something else keeps open', async () => {
    const { line, clock, session } = begin();
    const told = frames(session);
    line.end.resolve({ exitCode: 0 });
    line.stdout.write('late');
    line.stderr.end();
    await expect.poll(() => clock.delays).toHaveLength(1);
    clock.advance(2_000);
    expect(await told).toEqual(['1 late', '3 {"exitCode":0}']);
  });

  it('hands on input as fast as it is read, its end, sizes and signals, in their order', async () => {
    const { line, session } = begin();
    const first = send(session, sessionChannels.stdin, Buffer.alloc(100, 'a'));
    const second = send(session, sessionChannels.resize, '{"rows":30,"columns":90}');
    void send(session, sessionChannels.signal, '{"signal":2}');
    let isFirstTaken = false;
    void first.then(() => {
      isFirstTaken = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect({ isFirstTaken, told: line.told }).toEqual({ isFirstTaken: false, told: [] });
    line.stdin?.resume();
    await second;
    await send(session, sessionChannels.stdin, '');
    expect(line.told).toEqual([{ rows: 30, columns: 90 }, { signal: 2 }]);
    expect(line.stdin?.writableEnded).toBe(true);
    session.destroy();
  });

  it('survives a program that reads no more', async () => {
    const { line, session } = begin();
    line.stdin?.destroy(new Error('EPIPE'));
    await send(session, sessionChannels.stdin, 'nobody reads this');
    line.close({ exitCode: 0 });
    expect(await frames(session)).toEqual(['3 {"exitCode":0}']);
  });

  it.each([
    ['an unknown channel', encodeChannelFrame(9, Buffer.alloc(0))],
    [
      'a size that is none',
      encodeChannelFrame(sessionChannels.resize, Buffer.from('{"rows":0,"columns":1}')),
    ],
    ['no JSON', encodeChannelFrame(sessionChannels.signal, Buffer.from('9'))],
    ['a frame that is too long', Buffer.from([0, 0xff, 0xff, 0xff, 0xff])],
  ])('refuses %s in words, and lets the program go', async (_name, bytes) => {
    const { line, session } = begin(true);
    const told = frames(session);
    session.write(bytes);
    const end = JSON.parse(((await told)[0] ?? '').slice(2)) as unknown;
    expect(end).toMatchObject({ error: { class: 'InvalidArgument' } });
    expect(line.told).toEqual([{ signal: SIGHUP }]);
    expect(line.released).toBeGreaterThan(0);
  });

  it.each([
    [true, [{ signal: SIGHUP }]],
    [false, []],
  ])(
    'that is cut off hangs up where there is a terminal (%s), and else lets the program run on',
    async (hasTerminal, told) => {
      const { line, session } = begin(hasTerminal);
      session.destroy();
      await once(session, 'close');
      expect(line.told).toEqual(told);
      expect(line.stdin?.writableEnded).toBe(true);
      // Whatever it writes is read.
      for (let written = 0; written < 10; written += 1) {
        if (!line.stdout.write(Buffer.alloc(64 * 1024))) await once(line.stdout, 'drain');
      }
      line.close({ exitCode: 0 });
    },
  );

  it('holds back a program whose output nobody takes', async () => {
    const { line, session } = begin();
    session.resume();
    session.pause();
    line.stdout.write(Buffer.alloc(64 * 1024));
    await expect.poll(() => line.stdout.isPaused()).toBe(true);
    const told = frames(session);
    line.close({ exitCode: 0 });
    expect((await told).at(-1)).toBe('3 {"exitCode":0}');
  });
});

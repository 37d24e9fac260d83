/** The console of a guest, shared among sessions; the line to the guest is pretended. */
import { setMaxListeners } from 'node:events';
import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ByteSession, type SessionLine } from '../../../daemon/guests/byte-session.ts';
import { Consoles } from '../../../daemon/guests/console.ts';
import type { Guest } from '../../../daemon/guests/guest.ts';
import { deferred } from '../../../lib/abort.ts';
import { MAX_BEHIND_BYTES } from '../../../lib/attached-output.ts';
import { ChannelFrameReader, encodeChannelFrame } from '../../../lib/channel-frames.ts';
import { silentLog } from '../../../lib/log.ts';
import { type SessionEnd, sessionChannels } from '../../../protocol/byte-session.ts';
import { ManualClock } from '../manual-clock.ts';

/** The daemon's end of a guest's serial line. */
class Line extends Duplex {
  readonly typed: Buffer[] = [];
  /** The guest reads what is typed. */
  reads = true;
  readonly taken: (() => void)[] = [];

  override _read(): void {
    // The guest pushes.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.typed.push(chunk);
    if (this.reads) done();
    else this.taken.push(done);
  }

  says(text: string | Buffer): void {
    this.push(text);
  }
}

const begin = () => {
  const lines: Line[] = [];
  const ended = deferred<object>();
  const clock = new ManualClock();
  const { signal } = new AbortController();
  // One for each who attaches.
  setMaxListeners(0, signal);
  const house = { clock, stopping: signal, log: silentLog() };
  const guest = {
    id: 'one',
    name: 'web1',
    house,
    heldBy: undefined as string | undefined,
    process: 'alive',
    log: '',
    handle: {
      ended: ended.promise,
      openConsole: async () => {
        const line = new Line();
        lines.push(line);
        return line;
      },
    },
    driver: {
      probe: async () => guest.process,
      readLog: async (_place: unknown, _stream: string, { maxBytes }: { readonly maxBytes: number }) => ({
        text: guest.log.slice(-maxBytes),
      }),
    },
  };
  const consoles = new Consoles();
  const attach = (replayBytes = 0): Promise<SessionLine> =>
    consoles.attach(guest as unknown as Guest, replayBytes, signal);
  const session = async (replayBytes?: number): Promise<ByteSession> =>
    new ByteSession(await attach(replayBytes), false, house);
  const line = (): Line => lines.at(-1) as Line;
  return { guest, clock, ended, lines, line, attach, session };
};

interface Heard {
  readonly text: string;
  readonly end: SessionEnd | undefined;
}

/** All that a session carries, until its end. */
const hear = async (session: ByteSession): Promise<Heard> => {
  const reader = new ChannelFrameReader(65_536);
  let text = '';
  let end: SessionEnd | undefined;
  for await (const chunk of session)
    for (const { channel, payload } of reader.push(chunk as Buffer)) {
      expect(end).toBeUndefined();
      if (channel === sessionChannels.end) end = JSON.parse(payload.toString()) as SessionEnd;
      else text += `${channel === sessionChannels.stdout ? '' : channel}${payload.toString()}`;
    }
  return { text, end };
};

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const lost = { error: expect.objectContaining({ class: 'Unavailable', hint: expect.anything() }) };

describe('the console of a guest', () => {
  it('ends with its guest, behind all that the guest wrote, for everybody who is attached', async () => {
    const { ended, line, lines, session } = begin();
    const sessions = await Promise.all(Array.from({ length: 20 }, () => session()));
    const heard = sessions.map(hear);
    line().says('halt');
    line().says('ed');
    line().push(null);
    ended.resolve({});
    for (const told of await Promise.all(heard))
      expect(told).toEqual({ text: 'halted', end: { closed: 'guest-ended' } });
    expect(lines).toHaveLength(1);
  });

  it('is told to be lost where its guest goes on', async () => {
    const { clock, line, session } = begin();
    const heard = hear(await session());
    line().destroy(new Error('ECONNRESET'));
    await expect.poll(() => clock.delays).toHaveLength(1);
    clock.advance(2_000);
    expect((await heard).end).toEqual(lost);
  });

  it('ends with a guest whose end only its process tells', async () => {
    const { clock, guest, line, session } = begin();
    const heard = hear(await session());
    guest.process = 'gone';
    line().push(null);
    await expect.poll(() => clock.delays).toHaveLength(1);
    clock.advance(2_000);
    expect((await heard).end).toEqual({ closed: 'guest-ended' });
  });

  it('is lost, and not over, when the guest goes on in another process', async () => {
    const { ended, guest, line, session } = begin();
    const heard = hear(await session());
    guest.heldBy = 'an operation';
    line().push(null);
    ended.resolve({});
    expect((await heard).end).toMatchObject({
      error: { class: 'Unavailable', desc: expect.stringContaining('in another process') },
    });
  });

  it('lets go of who does not read, tells it why, and goes on for the others', async () => {
    const { line, session } = begin();
    const [lagging, reading] = [await session(), await session()];
    let read = 0;
    reading.on('data', (chunk: Buffer) => {
      read += chunk.length;
    });
    const chunk = Buffer.alloc(64 * 1024, 'x');
    let written = 0;
    // A megabyte, and what the session itself holds.
    while (written <= MAX_BEHIND_BYTES + 4 * chunk.length) {
      line().says(chunk);
      written += chunk.length;
      await turn();
    }
    const { text, end } = await hear(lagging);
    expect(end).toMatchObject({
      error: { class: 'Unavailable', desc: expect.stringContaining('too far behind') },
    });
    expect(text.length).toBeLessThan(written);
    expect(read).toBeGreaterThanOrEqual(written);
    line().says('still there');
    await expect.poll(() => read).toBeGreaterThan(written + 'still there'.length);
    expect(line().destroyed).toBe(false);
    reading.destroy();
    await expect.poll(() => line().destroyed).toBe(true);
  });

  it('begins with the end of its log, ahead of what comes meanwhile', async () => {
    const { guest, line, attach } = begin();
    guest.log = 'old words, login: ';
    const attaching = attach('login: '.length);
    await expect.poll(() => line()).toBeDefined();
    line().says('ada');
    const session = new ByteSession(await attaching, false, guest.house);
    const heard = hear(session);
    line().says('!');
    await turn();
    line().push(null);
    guest.process = 'gone';
    await expect.poll(() => guest.house.clock.delays).toHaveLength(1);
    guest.house.clock.advance(2_000);
    expect((await heard).text).toBe('login: ada!');
  });

  it('has no end of input, no size and no signals: such frames change nothing', async () => {
    const { ended, line, session } = begin();
    const attached = await session();
    const heard = hear(attached);
    const send = (channel: number, payload: string): void =>
      void attached.write(encodeChannelFrame(channel, Buffer.from(payload)));
    send(sessionChannels.stdin, 'one');
    send(sessionChannels.resize, '{"rows":30,"columns":90}');
    send(sessionChannels.signal, '{"signal":15}');
    send(sessionChannels.stdin, '');
    await expect.poll(() => Buffer.concat(line().typed).toString()).toBe('one');
    expect(line().writableEnded).toBe(false);
    line().says('heard you');
    await turn();
    line().push(null);
    ended.resolve({});
    expect(await heard).toEqual({ text: 'heard you', end: { closed: 'guest-ended' } });
  });

  it('lets a guest that does not read hold up whoever writes, and gathers nothing', async () => {
    const { line, attach } = begin();
    const { stdin, release } = await attach();
    line().reads = false;
    const chunk = Buffer.alloc(64 * 1024);
    expect(stdin?.write(chunk)).toBe(false);
    for (let count = 0; count < 10; count += 1) stdin?.write(chunk);
    expect(line().writableLength).toBe(chunk.length);
    const drained = new Promise<void>((resolve) => stdin?.once('drain', resolve));
    for (let count = 0; count < 11; count += 1) {
      line().taken.shift()?.();
      await turn();
    }
    await drained;
    release();
  });
});

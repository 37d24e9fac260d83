import { appendFile, mkdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GuestPlace } from '../../../drivers/driver.ts';
import { EventLog, lastEvents, readEvents } from '../../../drivers/processes/event-log.ts';
import { logPath } from '../../../drivers/processes/guest-files.ts';
import {
  boundLogs,
  lastLine,
  lastWords,
  openRunLogs,
  readLogPart,
  renameOldLog,
  unfinishedLength,
} from '../../../drivers/processes/guest-logs.ts';
import type { GuestId, InstanceId } from '../../../protocol/types.ts';
import { Witness } from '../../conformance/driver.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const signal = new AbortController().signal;
const MEBIBYTE = 1024 ** 2;

const line = (name: string, data: Readonly<Record<string, unknown>> = {}): string =>
  `${JSON.stringify({ timestamp: { seconds: 1, microseconds: 0 }, event: name, data })}\r\n`;
const opening = '{"QMP": {"version": {}}}\r\n{"return": {}}\r\n';

const placeIn = async (): Promise<GuestPlace> => {
  const directory = await testDirectory();
  const place = {
    id: '0b6a3f4e-3c9f-4d0c-8d52-3f0a1f1f7a11' as GuestId,
    number: 1,
    instance: 'ltest' as InstanceId,
    stateDirectory: join(directory, 'state'),
    runDirectory: join(directory, 'run'),
  };
  await mkdir(join(place.stateDirectory, 'log'), { recursive: true, mode: 0o700 });
  return place;
};

describe('the event log', () => {
  it('tells each event once, with the place behind it, however the file grows', async () => {
    const directory = await testDirectory();
    const path = join(directory, 'events.log');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('RESUME', 'STOP', 'RESET', 'X'), { maxLength: 12 }),
        fc.array(fc.nat({ max: 900 }), { maxLength: 6 }),
        async (names, cuts) => {
          const whole = Buffer.from(opening + names.map((name) => line(name)).join(''));
          await writeFile(path, '');
          const witness = new Witness();
          const log = new EventLog(path, 0, witness.observe);
          let written = 0;
          for (const cut of [...cuts.toSorted((a, b) => a - b), whole.length]) {
            const end = Math.min(cut, whole.length);
            await appendFile(path, whole.subarray(written, Math.max(written, end)));
            written = Math.max(written, end);
            // Three rings at once are one read after the other.
            await Promise.all([log.read(), log.read(), log.read()]);
          }
          expect(witness.seen).toHaveLength(names.length);
          for (const [index, { cursor }] of witness.seen.entries()) {
            const rest = new Witness();
            await new EventLog(path, cursor, rest.observe).read();
            expect(rest.story).toEqual(witness.story.slice(index + 1));
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('starts anew when the file became shorter: it is of a later run', async () => {
    const path = join(await testDirectory(), 'events.log');
    await writeFile(path, line('RESUME').repeat(5));
    const witness = new Witness();
    const log = new EventLog(path, 0, witness.observe);
    await log.read();
    await truncate(path, 0);
    await appendFile(path, line('STOP'));
    await log.read();
    expect(witness.story.slice(5)).toEqual(['paused user']);
  });

  it('is empty where there is none, and tells nothing once closed', async () => {
    const path = join(await testDirectory(), 'events.log');
    expect(await readEvents(path, 17, () => undefined)).toBe(0);
    await writeFile(path, line('RESUME'));
    const witness = new Witness();
    const log = new EventLog(path, 0, witness.observe);
    log.close();
    await log.read();
    expect(witness.seen).toEqual([]);
  });
});

describe('bounded logs', () => {
  it('give back their beginning and lose nothing after it; the black box only what was read', async () => {
    const place = await placeIn();
    await using _logs = await openRunLogs(place, 'tested');
    const events = logPath(place, 'events');
    const console = logPath(place, 'console');
    await appendFile(console, Buffer.alloc(6 * MEBIBYTE, 'x'));
    await appendFile(console, 'the end');
    const filler = line('FILLER', { text: 'y'.repeat(1000) });
    await appendFile(events, filler.repeat(Math.ceil((6 * MEBIBYTE) / filler.length)));
    const { size } = await stat(events);

    await boundLogs(place, 0, signal);
    expect((await stat(events)).blocks * 512).toBeGreaterThan(5 * MEBIBYTE);
    expect((await stat(console)).blocks * 512).toBeLessThan(2 * MEBIBYTE);
    expect((await stat(console)).size).toBe(6 * MEBIBYTE + 7);
    const part = await readLogPart(console, { maxBytes: 10 });
    expect(part.text).toBe('xxxthe end');
    expect((await readLogPart(console, { offset: 0, maxBytes: 100 })).text).toBe('');

    await boundLogs(place, size, signal);
    expect((await stat(events)).blocks * 512).toBeLessThan(2 * MEBIBYTE);
    await appendFile(events, line('STOP'));
    const witness = new Witness();
    await new EventLog(events, size, witness.observe).read();
    expect(witness.story).toEqual(['paused user']);
    expect((await lastEvents(events)).at(-1)?.event).toBe('STOP');
  });

  it('are put aside at a launch when they have grown, and the black box starts anew', async () => {
    const place = await placeIn();
    await (await openRunLogs(place, 'first'))[Symbol.asyncDispose]();
    await appendFile(logPath(place, 'console'), Buffer.alloc(MEBIBYTE + 1, 'x'));
    await appendFile(logPath(place, 'events'), line('STOP'));
    await (await openRunLogs(place, 'second'))[Symbol.asyncDispose]();
    expect((await stat(logPath(place, 'console'))).size).toBe(0);
    expect((await stat(`${logPath(place, 'console')}.1`)).size).toBe(MEBIBYTE + 1);
    expect((await stat(logPath(place, 'events'))).size).toBe(0);
  });
});

describe('last words', () => {
  it('are those of the latest run', async () => {
    const place = await placeIn();
    await (await openRunLogs(place, 'first'))[Symbol.asyncDispose]();
    await appendFile(logPath(place, 'process'), 'words of the first run\n');
    await (await openRunLogs(place, 'second'))[Symbol.asyncDispose]();
    expect(await lastWords(place)).toBe('');
    await appendFile(logPath(place, 'process'), 'one\ntwo\n');
    expect(await lastWords(place)).toBe('one\ntwo');
    await appendFile(logPath(place, 'process'), `${'z'.repeat(100)}\n`.repeat(100));
    expect((await lastWords(place)).length).toBeLessThanOrEqual(2048);
  });

  it('make one line without time and program', () => {
    expect(lastLine('x\n2026-11-23T13:51:46.202599Z qemu-system-x86_64: -device foo: bad')).toBe(
      '-device foo: bad',
    );
    expect(lastLine('/usr/bin/qemu-system-x86_64: bad')).toBe('bad');
    expect(lastLine('')).toBe('');
  });
});

describe('a part of a log', () => {
  it('read on part by part is the whole, whatever the characters', async () => {
    const directory = await testDirectory();
    const path = join(directory, 'console.log');
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: 'grapheme', maxLength: 40 }),
        fc.integer({ min: 4, max: 16 }),
        async (text, maxBytes) => {
          fc.pre(!text.includes('\0'));
          await writeFile(path, text);
          let read = '';
          let offset = 0;
          for (;;) {
            const part = await readLogPart(path, { offset, maxBytes });
            if (part.nextOffset === part.offset) break;
            read += part.text;
            offset = part.nextOffset;
          }
          expect(read).toBe(text);
          const tail = await readLogPart(path, { maxBytes });
          expect(text.endsWith(tail.text)).toBe(true);
          expect(tail.text).not.toContain('\ufffd'.repeat(text.includes('\ufffd') ? 99 : 1));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('gives bytes that are no text as the replacement character, and always gets on', async () => {
    const path = join(await testDirectory(), 'console.log');
    await writeFile(path, Buffer.of(0x61, 0xff, 0x62, 0xf0));
    const first = await readLogPart(path, { offset: 0, maxBytes: 100 });
    expect(first).toMatchObject({ text: 'a\ufffdb', nextOffset: 3 });
    expect(await readLogPart(path, { offset: 3, maxBytes: 1 })).toMatchObject({
      text: '\ufffd',
      nextOffset: 4,
    });
  });

  it.each([
    [[0x61], 0],
    [[0xc3], 1],
    [[0xc3, 0xa4], 0],
    [[0xe2, 0x82], 2],
    [[0xf0, 0x9f, 0x98], 3],
    [[0xf0, 0x9f, 0x98, 0x80], 0],
    [[0x80, 0x80, 0x80, 0x80], 0],
    [[], 0],
  ])('knows how much of %j is unfinished', (bytes, length) => {
    expect(unfinishedLength(Buffer.from(bytes))).toBe(length);
  });
});

describe('the log of a process', () => {
  it('of an earlier daemon has another name, and goes on under that of today', async () => {
    const place = await placeIn();
    const old = join(place.stateDirectory, 'log', 'qemu.log');
    await writeFile(old, 'before\n');
    await renameOldLog(place);
    await renameOldLog(place);
    expect(await readLogPart(logPath(place, 'process'), { maxBytes: 100 })).toMatchObject({
      text: 'before\n',
    });
    await writeFile(old, 'of nobody\n');
    await renameOldLog(place);
    expect(await readLogPart(logPath(place, 'process'), { maxBytes: 100 })).toMatchObject({
      text: 'before\n',
    });
  });
});

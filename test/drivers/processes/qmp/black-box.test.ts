import { appendFile, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseBlackBox, readBlackBox } from '../../../../drivers/processes/qmp/black-box.ts';
import type { QmpEvent } from '../../../../drivers/processes/qmp/qmp-types.ts';

const event = (name: string, data: Record<string, unknown> = {}): QmpEvent => ({
  event: name,
  data,
  timestamp: { seconds: 1_795_439_980, microseconds: 179_723 },
});
const line = (message: unknown): string => `${JSON.stringify(message)}\r\n`;
const opening = line({ QMP: { version: {}, capabilities: ['oob'] } }) + line({ return: {} });
const names = (events: readonly QmpEvent[]): string[] => events.map(({ event: name }) => name);

describe('parseBlackBox', () => {
  test('gives events and skips greeting and replies', () => {
    const shutdown = event('SHUTDOWN', { guest: true, reason: 'guest-shutdown' });
    const log = Buffer.from(opening + line(event('RESUME')) + line(shutdown));
    expect(parseBlackBox(log)).toEqual({ events: [event('RESUME'), shutdown], consumed: log.length });
  });

  test('leaves an unfinished last line for the next time', () => {
    const whole = line(event('RESUME'));
    const log = Buffer.from(whole + line(event('STOP')).slice(0, 30));
    expect(parseBlackBox(log)).toEqual({ events: [event('RESUME')], consumed: whole.length });
  });

  test('takes a last message that lacks only its line end, once', () => {
    const text = JSON.stringify(event('STOP'));
    expect(parseBlackBox(Buffer.from(text))).toEqual({ events: [event('STOP')], consumed: text.length });
    expect(parseBlackBox(Buffer.from(`\r\n${line(event('RESUME'))}`)).events).toEqual([event('RESUME')]);
  });

  test('skips what is unreadable, and goes on behind it', () => {
    const garbage = [
      '',
      '}{',
      '{"event":"X"}',
      '[1]',
      '7',
      'null',
      '{"timestamp": {"sec{"QMP": {}}',
      '\0\0\0',
    ];
    const log = Buffer.concat([
      Buffer.from(`${garbage.join('\r\n')}\r\n`),
      Buffer.of(0xff, 0xc3, 0x0a),
      Buffer.from(line(event('STOP'))),
    ]);
    expect(parseBlackBox(log)).toEqual({ events: [event('STOP')], consumed: log.length });
  });

  test('read piece by piece, every event comes exactly once', () => {
    // A member of that name is dropped on purpose.
    const memberName = fc.string().filter((name) => name !== '__proto__');
    const anyEvent = fc
      .tuple(fc.string({ minLength: 1 }), fc.dictionary(memberName, fc.jsonValue()))
      .map(([name, data]) => event(name, JSON.parse(JSON.stringify(data)) as Record<string, unknown>));
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 8 }), fc.array(fc.nat()), (events, cuts) => {
        const log = Buffer.from(opening + events.map(line).join(''));
        const ends = [...cuts.map((cut) => cut % (log.length + 1)).sort((a, b) => a - b), log.length];
        const seen: QmpEvent[] = [];
        let offset = 0;
        for (const end of ends) {
          const part = parseBlackBox(log.subarray(offset, Math.max(end, offset)));
          seen.push(...part.events);
          offset += part.consumed;
        }
        expect(names(seen)).toEqual(names(events));
        expect(seen).toEqual(events);
      }),
    );
  });

  test('never throws and never consumes more than there is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        const { consumed } = parseBlackBox(Buffer.from(noise));
        expect(consumed).toBeLessThanOrEqual(noise.length);
      }),
    );
  });
});

describe('readBlackBox', () => {
  let directory = '';
  let path = '';
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'black-box-'));
    path = join(directory, 'events.log');
  });
  afterEach(() => rm(directory, { recursive: true }));

  test('goes on where it was', async () => {
    await writeFile(path, opening + line(event('RESUME')));
    const first = await readBlackBox(path, 0);
    expect(names(first.events)).toEqual(['RESUME']);
    expect(await readBlackBox(path, first.nextOffset)).toEqual({ ...first, events: [] });
    await appendFile(path, line(event('STOP')));
    const second = await readBlackBox(path, first.nextOffset);
    expect(names(second.events)).toEqual(['STOP']);
    expect(second.nextOffset).toBe(second.size);
  });

  test('starts over when the log was truncated', async () => {
    await writeFile(path, line(event('RESUME')).repeat(3));
    const { nextOffset } = await readBlackBox(path, 0);
    await truncate(path);
    await appendFile(path, line(event('STOP')));
    expect(names((await readBlackBox(path, nextOffset)).events)).toEqual(['STOP']);
  });

  test('takes no more than its bound at a time, and comes to the end', async () => {
    const events = Array.from({ length: 50 }, (_, index) => event(`E${index}`));
    await writeFile(path, events.map(line).join(''));
    const seen: QmpEvent[] = [];
    let [offset, before] = [0, -1];
    while (offset > before) {
      const part = await readBlackBox(path, offset, { maxBytes: 250 });
      expect(part.nextOffset - offset).toBeLessThanOrEqual(250);
      seen.push(...part.events);
      [offset, before] = [part.nextOffset, offset];
    }
    expect(seen).toEqual(events);
  });

  test('a message longer than the bound does not stop it', async () => {
    await writeFile(path, line(event('BIG', { text: 'x'.repeat(2_000) })) + line(event('STOP')));
    const seen: QmpEvent[] = [];
    let [offset, before] = [0, -1];
    while (offset > before) {
      const part = await readBlackBox(path, offset, { maxBytes: 250 });
      seen.push(...part.events);
      [offset, before] = [part.nextOffset, offset];
    }
    expect(names(seen)).toEqual(['STOP']);
  });

  test('a log that was never begun is an error', async () => {
    await expect(readBlackBox(path, 0)).rejects.toMatchObject({ code: 'ENOENT' });
    await writeFile(path, '');
    expect(await readBlackBox(path, 0)).toEqual({ events: [], nextOffset: 0, size: 0 });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(readBlackBox(path, 0, { signal })).rejects.toThrow('enough');
  });
});

import { appendFile, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { TranscriptWriter } from '../../../drivers/processes/transcript.ts';
import { silentLog } from '../../../lib/log.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const ALL = { limit: 100_000 };
const KEPT_BYTES = 1024 * 1024;

const inDirectory = async (): Promise<{ readonly path: string; readonly open: () => TranscriptWriter }> => {
  const path = join(await testDirectory('transcript'), 'qmp.log');
  const open = (): TranscriptWriter => {
    const writer = new TranscriptWriter(path, silentLog());
    onTestFinished(() => writer.close());
    return writer;
  };
  return { path, open };
};

const talk = (writer: TranscriptWriter, id: number): void => {
  writer.sent({ execute: 'query-status', arguments: {}, id }, 50);
  writer.received({ return: { status: 'running' }, id }, 40);
};

it('tells commands, answers, errors, events and sessions in order, with times and how long an answer took', async () => {
  const writer = (await inDirectory()).open();
  writer.connecting();
  writer.received({ QMP: { version: { package: '' }, capabilities: [] } }, 60);
  talk(writer, 1);
  writer.sent({ execute: 'device_add', arguments: { id: 'disk0', driver: 'nothing' }, id: 2 }, 70);
  writer.received({ error: { class: 'GenericError', desc: "no 'nothing'" }, id: 2 }, 70);
  writer.event({ event: 'RESUME', data: {}, timestamp: { seconds: 12, microseconds: 345_678 } });
  // The session's own copy of an event is the doorbell and no more.
  writer.received({ event: 'RESUME', timestamp: { seconds: 12, microseconds: 345_678 } }, 50);
  writer.ended('the monitor ended the QMP session');
  const { entries, unanswered } = await writer.read(ALL);
  expect(entries).toEqual([
    expect.objectContaining({ number: 1, kind: 'session', text: expect.stringContaining('connected') }),
    { number: 2, at: expect.any(Number), kind: 'command', name: 'query-status', id: 1 },
    {
      number: 3,
      at: expect.any(Number),
      kind: 'reply',
      name: 'query-status',
      id: 1,
      ms: expect.any(Number),
      text: '{"status":"running"}',
    },
    expect.objectContaining({ kind: 'command', text: '{"id":"disk0","driver":"nothing"}' }),
    expect.objectContaining({ kind: 'error', name: 'device_add', text: "GenericError: no 'nothing'" }),
    { number: 6, at: 12_345, kind: 'event', name: 'RESUME' },
    expect.objectContaining({ kind: 'session', text: 'the monitor ended the QMP session' }),
  ]);
  expect(unanswered).toEqual([]);
});

it('names what waits for an answer, with its age, and what never got one when the session ends', async () => {
  const writer = (await inDirectory()).open();
  writer.connecting();
  expect((await writer.read(ALL)).unanswered).toEqual([
    { name: 'greeting', at: expect.any(Number), ageMs: expect.any(Number) },
  ]);
  writer.received({ QMP: {} }, 10);
  writer.sent({ execute: 'stop', id: 7 }, 20);
  expect((await writer.read(ALL)).unanswered).toMatchObject([{ name: 'stop' }]);
  writer.ended('the monitor ended the QMP session');
  const { entries, unanswered } = await writer.read(ALL);
  expect(unanswered).toEqual([]);
  expect(entries.at(-1)?.text).toBe('the monitor ended the QMP session; never answered: stop');
});

it('tells once that no session comes up, and again after there was one', async () => {
  const writer = (await inDirectory()).open();
  for (const _attempt of [1, 2]) {
    writer.connecting();
    writer.notConnected('nobody greets');
  }
  writer.received({ QMP: {} }, 10);
  writer.notConnected('nobody greets');
  const { entries } = await writer.read(ALL);
  expect(entries.map(({ text }) => text)).toEqual([
    'no session: nobody greets',
    'connected: {}',
    'no session: nobody greets',
  ]);
});

it('hides secrets, and keeps of a huge answer its beginning and its size', async () => {
  const { open, path } = await inDirectory();
  const writer = open();
  const secret = 'correct horse';
  writer.sent({ execute: 'set_password', arguments: { protocol: 'vnc', password: secret }, id: 1 }, 99);
  writer.sent({ execute: 'object-add', arguments: { 'qom-type': 'secret', data: secret }, id: 2 }, 99);
  writer.received({ return: Array.from({ length: 500_000 }, () => 'element'), id: 1 }, 5_000_000);
  const { entries } = await writer.read(ALL);
  expect(entries[2]).toMatchObject({
    bytes: 5_000_000,
    text: expect.stringMatching(/^\["element","element"/),
  });
  const kept = await readFile(path, 'utf8');
  expect(kept).not.toContain(secret);
  expect(kept.length).toBeLessThan(8192);
});

it('goes on after a restart of the daemon, and after a crash that cut its last line', async () => {
  const { open, path } = await inDirectory();
  const first = open();
  talk(first, 1);
  await first.close();
  talk(first, 2);
  await appendFile(path, '{"number":3,"at":');
  const second = open();
  talk(second, 1);
  const { entries } = await second.read(ALL);
  expect(entries.map(({ number }) => number)).toEqual([1, 2, 3, 4]);
});

it('is bounded, keeps the newest, and counts on over what it gave up', async () => {
  const { open, path } = await inDirectory();
  const writer = open();
  let talks = 0;
  while (talks < 12_000) {
    for (let each = 0; each < 100; each += 1) talk(writer, (talks += 1));
    await writer.flush();
  }
  await writer.close();
  const sizes = await Promise.all([path, `${path}.1`].map(async (each) => (await stat(each)).size));
  expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(KEPT_BYTES);
  const reader = open();
  const { entries } = await reader.read(ALL);
  expect(entries.at(-1)?.number).toBe(24_000);
  expect(entries.length).toBeGreaterThan(2000);
  const numbers = entries.map(({ number }) => number);
  expect(numbers).toEqual(numbers.map((_, index) => 24_000 - numbers.length + 1 + index));
  talk(reader, 1);
  expect((await reader.read({ limit: 1 })).entries).toMatchObject([{ number: 24_002, kind: 'reply' }]);
});

it('says how much it left out of a flood, and lets nobody wait for it', async () => {
  const writer = (await inDirectory()).open();
  const timestamp = { seconds: 1, microseconds: 0 };
  for (let each = 0; each < 10_000; each += 1) writer.event({ event: 'RESET', data: {}, timestamp });
  talk(writer, 1);
  const { entries } = await writer.read(ALL);
  const missing = Number(/^(\d+) entries$/.exec(entries.at(-1)?.text ?? '')?.[1]);
  expect(entries.at(-1)).toMatchObject({ kind: 'skipped' });
  expect(missing).toBe(10_002 - (entries.length - 1));
  expect(missing).toBeGreaterThan(8000);
});

it('gives parts: the last entries, those after a number, and the numbers that are no longer kept', async () => {
  const { open, path } = await inDirectory();
  const writer = open();
  for (let id = 1; id <= 5; id += 1) talk(writer, id);
  const numbers = async (range: Parameters<TranscriptWriter['read']>[0]): Promise<readonly number[]> =>
    (await writer.read(range)).entries.map(({ number }) => number);
  expect(await numbers({ limit: 3 })).toEqual([8, 9, 10]);
  expect(await numbers({ after: 4, limit: 3 })).toEqual([5, 6, 7]);
  expect(await numbers({ after: 10, limit: 3 })).toEqual([]);
  const lines = (await readFile(path, 'utf8')).split('\n');
  await writeFile(path, lines.slice(6).join('\n'));
  expect(await writer.read({ after: 2, limit: 1 })).toMatchObject({
    entries: [{ number: 7 }],
    lost: { from: 3, to: 6 },
  });
});

it('that cannot be written has a gap and disturbs nobody', async () => {
  const { open, path } = await inDirectory();
  const writer = open();
  const directory = join(path, '..');
  await rm(directory, { recursive: true });
  talk(writer, 1);
  await writer.flush();
  expect(await writer.read(ALL)).toMatchObject({ entries: [] });
  await expect(stat(directory)).rejects.toMatchObject({ code: 'ENOENT' });
});

it('has nothing written after its close, also of what was said while it closed', async () => {
  const { path, open } = await inDirectory();
  const writer = open();
  talk(writer, 1);
  const closed = writer.close();
  // The last writing has begun by then.
  for (let step = 0; step < 5; step += 1) await Promise.resolve();
  talk(writer, 2);
  await closed;
  await rm(path);
  await writer.flush();
  await expect(stat(path)).rejects.toThrow('ENOENT');
});

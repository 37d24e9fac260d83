/** The warden's monitor: what it makes of commands in any form, and of what is none. */
import { closeSync, openSync, readlinkSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import type { Socket } from 'node:net';
import * as fc from 'fast-check';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { received, WardenProcess } from './warden-process.ts';

const { signal } = new AbortController();
const numRuns = process.env['ROOST_TORTURE'] === 'long' ? 5000 : 200;
const greeting =
  /^\{"QMP": \{"version": \{"qemu": \{.*\}, "package": "roost-warden"\}, "capabilities": \[\]\}\}\r\n/;

let warden: WardenProcess;
const lines: Socket[] = [];

/** A connection that was greeted. */
const greeted = async (): Promise<Socket> => {
  const line = await warden.line('qmp.sock');
  lines.push(line);
  expect(await received(line, '\r\n')).toMatch(greeting);
  return line;
};

const negotiated = async (): Promise<Socket> => {
  const line = await greeted();
  await ask(line, '{"execute": "qmp_capabilities"}');
  return line;
};

/** Sends bytes; the next message. */
const ask = async (line: Socket, bytes: string): Promise<unknown> => {
  line.write(bytes);
  return JSON.parse(await received(line, '\r\n'));
};

const closed = async (line: Socket): Promise<void> => {
  if (!line.closed) await new Promise((resolve) => line.once('close', resolve));
};

const hangUp = async (): Promise<void> => {
  for (const line of lines.splice(0)) {
    line.destroy();
    await closed(line);
  }
};

/** What a command is answered with behind whatever was sent, on a line of its own. */
const servedNext = async (): Promise<unknown> => {
  await hangUp();
  return await ask(await negotiated(), '{"execute": "query-status", "id": "next"}');
};
const served = { return: { status: 'prelaunch', running: false }, id: 'next' };

describeWith(['root'], 'the monitor of a warden', () => {
  beforeAll(async () => {
    warden = await WardenProcess.start({ init: ['/bin/sleep', '1000'] });
  }, 120_000);
  afterEach(hangUp);
  afterAll(async () => {
    await warden[Symbol.asyncDispose]();
  });

  it('obeys nothing before it was negotiated with, and is negotiated with once', async () => {
    const line = await greeted();
    const refused = { id: 1, error: { class: 'CommandNotFound' } };
    expect(await ask(line, '{"execute": "cont", "id": 1}')).toMatchObject(refused);
    expect(await ask(line, '{"execute": "qmp_capabilities", "id": 1}')).toEqual({ return: {}, id: 1 });
    expect(await ask(line, '{"execute": "qmp_capabilities", "id": 1}')).toMatchObject(refused);
    expect(await ask(line, '{"execute": "query-block", "id": 1}')).toEqual({
      id: 1,
      error: { class: 'CommandNotFound', desc: 'The command query-block has not been found' },
    });
  });

  it('takes commands in any pieces, and echoes any id', async () => {
    const line = await negotiated();
    for (const byte of '\n {"id" : {"a":[1,-2.5e3,"\\u00e9é"]},"execute"\t:"query-status" }')
      line.write(byte);
    const status = { status: 'prelaunch', running: false };
    expect(JSON.parse(await received(line, '\r\n'))).toMatchObject({ return: status });
    line.write('{"execute":"query-kvm","id":1}{"execute":"query-chardev","id":2}{"execute":"x","id":');
    const text = await received(line, '"id": 2}\r\n');
    expect(
      text
        .trim()
        .split('\r\n')
        .map((each) => JSON.parse(each)),
    ).toEqual([
      { return: { enabled: false, present: false }, id: 1 },
      { return: [], id: 2 },
    ]);
    expect(await ask(line, 'null}')).toMatchObject({ id: null, error: { class: 'CommandNotFound' } });
    expect(await ask(line, '{"execute":"query-kvm"}')).toEqual({
      return: { enabled: false, present: false },
    });
  });

  it.each([
    ['no JSON', 'help\n'],
    ['no object', '[1]'],
    ['half a character', '{"execute":"\xff"}'],
    ['a number that is none', '{"execute":"stop","id":01}'],
    ['a line end in a string', '{"execute":"st\nop"}'],
    ['too many levels', '{"id":'.padEnd(200, '[')],
    ['no command', '{"id":1}'],
    ['no name', '{"execute":7}'],
    ['no arguments', '{"execute":"stop","arguments":[]}'],
    ['a member too many', '{"execute":"stop","exec-oob":"stop"}'],
    ['a member twice', '{"execute":"stop","execute":"cont"}'],
    ['an id that is too long', `{"execute":"stop","id":"${'x'.repeat(300)}"}`],
    ['a command that is too long', `{"execute":"${'x'.repeat(20_000)}"}`],
  ])('refuses %s, and goes on', async (_what, bytes) => {
    const line = await negotiated();
    line.write(Buffer.from(bytes, 'latin1'));
    const [first = ''] = (await received(line, '\r\n')).split('\r\n');
    expect(JSON.parse(first)).toMatchObject({ error: { class: 'GenericError' } });
    expect(await servedNext()).toEqual(served);
  });

  it('serves one after the other, and forgets with each', async () => {
    const first = await negotiated();
    first.write('{"execute": "query-');
    const second = await warden.line('qmp.sock');
    lines.push(second);
    second.write('{"execute": "qmp_capabilities", "id": 5}');
    expect(await ask(first, 'kvm", "id": 4}')).toMatchObject({ id: 4 });
    first.write('{"execute": "query-');
    first.destroy();
    await received(second, '"id": 5}\r\n');
  });

  it('lets go of one that does not read', async () => {
    const line = await negotiated();
    line.pause();
    const ended = closed(line);
    const many = '{"execute": "query-status"}'.repeat(1000);
    const write = (): void => {
      if (line.writable) line.write(many, (error) => void (error ?? setImmediate(write)));
    };
    write();
    await ended;
    expect(await servedNext()).toEqual(served);
  });

  it('keeps descriptors by their names', async () => {
    const monitor = await warden.monitor();
    const path = warden.path('events.log');
    const count = async (): Promise<number> =>
      (await readdir(`/proc/${warden.pid}/fd`)).filter((fd) => {
        try {
          return readlinkSync(`/proc/${warden.pid}/fd/${fd}`) === path;
        } catch {
          return false;
        }
      }).length;
    const before = await count();
    const fd = openSync(path, 'r');
    for (const name of ['one', 'two', 'one']) await monitor.sendDescriptor(name, fd, { signal });
    expect(await count()).toBe(before + 2);
    await monitor.execute('closefd', { fdname: 'two' }, { signal });
    await expect(monitor.execute('closefd', { fdname: 'two' }, { signal })).rejects.toThrow('No file');
    await expect(monitor.execute('getfd', { fdname: 'three' }, { signal })).rejects.toThrow('SCM_RIGHTS');
    for (let i = 2; i <= 8; i += 1) await monitor.sendDescriptor(`n${i}`, fd, { signal });
    await expect(monitor.sendDescriptor('ninth', fd, { signal })).rejects.toThrow('8 file descriptors');
    await expect(monitor.sendDescriptor('', fd, { signal })).rejects.toThrow('fdname');
    expect(await count()).toBe(before + 8);
    closeSync(fd);
    await monitor.close();
  });

  it('survives whatever it is sent', { timeout: numRuns * 1000 }, async () => {
    const command = fc.record(
      {
        execute: fc.constantFrom(
          'query-status',
          'stop',
          'getfd',
          'system_powerdown',
          'query-chardev',
          'nothing',
          '\u0000',
        ),
        id: fc.jsonValue({ maxDepth: 3 }),
        arguments: fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 }),
      },
      { requiredKeys: ['execute'] },
    );
    const piece = fc.oneof(
      { weight: 6, arbitrary: command.map((each) => Buffer.from(JSON.stringify(each))) },
      { weight: 1, arbitrary: fc.json().map((each) => Buffer.from(each)) },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((each) => Buffer.from(each)) },
    );
    const damage = fc.option(fc.record({ at: fc.nat(200), byte: fc.nat(255) }), { freq: 3 });
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 12 }), damage, async (pieces, wrong) => {
        const line = await greeted();
        let said = '';
        line.on('data', (chunk: Buffer) => {
          said += chunk.toString();
        });
        const bytes = Buffer.concat([Buffer.from('{"execute":"qmp_capabilities"}'), ...pieces]);
        if (wrong && wrong.at < bytes.length) bytes[wrong.at] = wrong.byte;
        line.end(bytes);
        await closed(line);
        // Whatever was asked, what is said is JSON, line by line.
        expect(() =>
          said
            .split('\r\n')
            .filter(Boolean)
            .map((each) => JSON.parse(each)),
        ).not.toThrow();
        expect(await servedNext()).toEqual(served);
        await hangUp();
      }),
      { numRuns },
    );
  });

  it('echoes the id of every command that is one', { timeout: numRuns * 1000 }, async () => {
    const line = await negotiated();
    const id = fc
      .jsonValue({ maxDepth: 2 })
      .filter((value) => Buffer.byteLength(JSON.stringify(value)) <= 256);
    await fc.assert(
      fc.asyncProperty(id, async (value) => {
        line.write(JSON.stringify({ execute: 'query-kvm', id: value }));
        const answer: unknown = JSON.parse(Buffer.from(await received(line, '\r\n'), 'latin1').toString());
        expect(answer).toEqual(
          JSON.parse(JSON.stringify({ return: { enabled: false, present: false }, id: value })),
        );
      }),
      { numRuns },
    );
    await hangUp();
  });
});

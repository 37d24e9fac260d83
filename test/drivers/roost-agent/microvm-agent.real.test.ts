/** The host's end against an agent that does whatever a guest can do. */
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentSession } from '../../../drivers/roost-agent/agent-session.ts';
import { OUTPUT_WINDOW_BYTES } from '../../../drivers/roost-agent/byte-streams.ts';
import { FieldWriter } from '../../../drivers/roost-agent/fields.ts';
import { encodeFrame, type FrameType, frameTypes } from '../../../drivers/roost-agent/frames.ts';
import { MicrovmAgent } from '../../../drivers/roost-agent/microvm-agent.ts';
import type { RoostError } from '../../../protocol/errors.ts';
import { EvilMicrovm, healthy } from './evil-microvm.ts';

const MEBIBYTE = 1024 * 1024;
const never = new AbortController().signal;
const nothing = Buffer.alloc(0);

let evil: EvilMicrovm;
beforeEach(() => {
  evil = new EvilMicrovm();
});
afterEach(() => {
  evil.close();
});

const open = (signal = never): Promise<MicrovmAgent> => MicrovmAgent.open(evil.lines, signal);
const failureOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: unknown) => error,
  );
const unavailable = { class: 'Unavailable' };

describe('a greeting', () => {
  it('gives who is there', async () => {
    evil.greet = (line) => {
      const welcome = new FieldWriter().u16('version', 1).text('agent', 'init\u001b[2J').u8('state', 0);
      welcome.text('message', 'no disk').bytes('token', Buffer.from('t')).text('bootId', 'b');
      evil.say(line, 'welcome', 0, welcome.payload());
    };
    expect((await open()).facts).toEqual({
      agent: 'init [2J',
      bootId: 'b',
      failure: 'no disk',
      token: Buffer.from('t'),
    });
  });

  it('finds its answer behind what an earlier host left on the line', async () => {
    evil.greet = (line) => {
      evil.bytes(line, Buffer.from('half of something'));
      evil.bytes(
        line,
        Buffer.concat(encodeFrame({ type: 'data', id: 1, session: 5n }, Buffer.alloc(9000))).subarray(
          0,
          5000,
        ),
      );
      evil.say(line, 'welcome', 0, evil.welcome());
    };
    const agent = await open();
    expect(await agent.ping(never)).toBeUndefined();
  });

  const bad: Readonly<Record<string, (line: 'control' | 'streams') => void>> = {
    'another version': (line) => evil.say(line, 'welcome', 0, new FieldWriter().u16('version', 9).payload()),
    'no version': (line) => evil.say(line, 'welcome', 0, new FieldWriter().text('agent', 'x').payload()),
    'no fields': (line) => evil.say(line, 'welcome', 0, Buffer.from('xyz')),
    'something else': (line) => evil.say(line, 'reply', 1, nothing),
    'that it speaks another version': () =>
      evil.say('control', 'error', 0, new FieldWriter().u16('version', 2).payload()),
    'its end': () => evil.close(),
  };
  it.each(Object.keys(bad))('answered with %s is none', async (name) => {
    evil.greet = (line) => bad[name]?.(line);
    await expect(open()).rejects.toMatchObject(unavailable);
    await evil.until(() => evil.isGone);
  });

  it('that is not answered lasts as long as its signal', async () => {
    evil.greet = () => undefined;
    const controller = new AbortController();
    const failure = failureOf(open(controller.signal));
    await evil.until(() => evil.session('control') !== 0n && evil.session('streams') !== 0n);
    controller.abort(new Error('enough'));
    expect(await failure).toMatchObject({ message: 'enough' });
    expect(evil.isGone || evil.lines.control.destroyed).toBe(true);
  });

  it('that is answered with noise without end is given up', async () => {
    evil.greet = () => undefined;
    const failure = failureOf(open());
    await evil.until(() => evil.session('control') !== 0n);
    const took = await evil.flood('control', Buffer.alloc(64 * 1024, 0x8f), 64 * MEBIBYTE);
    expect(took).toBeLessThan(20 * MEBIBYTE);
    expect(await failure).toMatchObject(unavailable);
  });
});

describe('an agent that is silent', () => {
  it('is waited for as long as the signal lets it, and told that nobody waits any more', async () => {
    const agent = await open();
    evil.answer = () => undefined;
    const controller = new AbortController();
    const failure = failureOf(agent.ping(controller.signal));
    await evil.until(() => evil.heard.length > 0);
    controller.abort(new Error('enough'));
    expect(await failure).toMatchObject({ message: 'enough' });
    await evil.until(() => evil.heard.some(({ type }) => type === 'cancel'));
    // Its late answer is nobody's.
    evil.say('control', 'reply', 1, nothing);
    evil.answer = healthy;
    await agent.ping(never);
  });

  it('is waited for until the deadline of a request', async () => {
    const { session } = await AgentSession.open(evil.lines, never);
    evil.answer = () => undefined;
    await expect(session.call('ping', new FieldWriter(), never, { timeoutMs: 20 })).rejects.toMatchObject({
      class: 'DeadlineExceeded',
      data: { request: 'ping', timeoutMs: 20 },
    });
  });

  it('is asked by a limited number of callers at once, and given up when it answers none', async () => {
    const { session } = await AgentSession.open(evil.lines, never);
    evil.answer = () => undefined;
    for (let round = 0; round < 2; round += 1) {
      const controller = new AbortController();
      const calls = Array.from({ length: 300 }, () =>
        failureOf(session.call('ping', new FieldWriter(), controller.signal)),
      );
      await evil.until(() => evil.heard.length > 0 || evil.isGone);
      controller.abort(new Error('enough'));
      const refused = (await Promise.all(calls)).filter((error) => (error as { class?: string }).class);
      expect(refused.length).toBeGreaterThanOrEqual(44);
    }
    await expect(session.call('ping', new FieldWriter(), never)).rejects.toMatchObject(unavailable);
  });

  it('that started a program nobody waits for any more has it ended and released', async () => {
    const agent = await open();
    let execId = 0;
    evil.answer = (heard) => {
      if (heard.type === 'exec') execId = heard.id;
      else healthy(heard, evil);
    };
    const controller = new AbortController();
    const failure = failureOf(agent.exec({ process: 5, argv: ['x'] }, controller.signal));
    await evil.until(() => execId !== 0);
    controller.abort(new Error('enough'));
    await failure;
    evil.say('control', 'reply', execId, new FieldWriter().u32('pid', 1).payload());
    await evil.until(() => evil.heard.some(({ type }) => type === 'signal'));
    evil.say('control', 'exited', 5, new FieldWriter().u32('exitSignal', 9).payload());
    await evil.until(() => evil.heard.some(({ type }) => type === 'release'));
    expect(await agent.ping(never)).toBeUndefined();
  });
});

describe('an agent that goes', () => {
  it('takes everybody who waits with it', async () => {
    const agent = await open();
    const program = await agent.exec({ process: 1, argv: ['x'], stdin: true, stdout: true }, never);
    const closed = new Promise((resolve) => program.stdout?.once('close', resolve));
    evil.answer = () => undefined;
    const failures = [failureOf(program.wait(never)), failureOf(agent.inspect(never))];
    await evil.until(() => evil.heard.some(({ type }) => type === 'inspect'));
    evil.close();
    for (const failure of failures) expect(await failure).toMatchObject(unavailable);
    await closed;
    expect(program.stdout?.errored).toMatchObject(unavailable);
    expect(program.stdin?.destroyed).toBe(true);
    expect(agent.broken.aborted).toBe(true);
    await expect(agent.ping(never)).rejects.toMatchObject(unavailable);
  });
});

describe('an agent that lies', () => {
  const lies: Readonly<Record<string, () => void>> = {
    'an answer to nothing': () => evil.say('control', 'reply', 4000, nothing),
    'the same answer twice': () => {
      evil.say('control', 'reply', 1, nothing);
      evil.say('control', 'reply', 1, nothing);
    },
    'a request': () => evil.say('control', 'exec', 1, nothing),
    'the end of a program that nobody runs': () => evil.say('control', 'exited', 99, nothing),
    'fields that are none': () => evil.say('control', 'reply', 1, Buffer.from([1])),
    'data on control': () => evil.say('control', 'data', 1, nothing),
    'data for no stream': () => evil.say('streams', 'data', 99, Buffer.alloc(10)),
    'an end of no stream': () => evil.say('streams', 'end', 99, nothing),
    'empty data': () => evil.say('streams', 'data', 2, nothing),
    'data for an input': () => evil.say('streams', 'data', 1, Buffer.alloc(10)),
    'a credit of nothing': () => evil.say('streams', 'credit', 1, Buffer.alloc(4)),
    'a credit of everything': () => evil.say('streams', 'credit', 1, Buffer.alloc(4, 0xff)),
    'half a credit': () => evil.say('streams', 'credit', 1, Buffer.alloc(2)),
    'more than was granted': () => {
      for (let sent = 0; sent <= OUTPUT_WINDOW_BYTES; sent += 60_000)
        evil.say('streams', 'data', 2, Buffer.alloc(60_000));
    },
    'two stops': () => {
      evil.say('streams', 'stop', 1, nothing);
      evil.say('streams', 'stop', 1, nothing);
    },
    'data after the end': () => {
      evil.say('streams', 'end', 2, nothing);
      for (let index = 0; index < 20; index += 1) evil.say('streams', 'data', 2, Buffer.alloc(60_000));
    },
    noise: () => void evil.bytes('streams', Buffer.alloc(64, 'what')),
    'another session': () =>
      void evil.bytes('control', Buffer.concat(encodeFrame({ type: 'ping', id: 1, session: 3n }, nothing))),
    'a damaged frame': () => {
      const frame = Buffer.concat(
        encodeFrame({ type: 'reply', id: 1, session: evil.session('control') }, Buffer.from('abcdef')),
      );
      frame[35] = 0;
      evil.bytes('control', frame);
    },
    flags: () =>
      void evil.bytes(
        'control',
        Buffer.concat(
          encodeFrame({ type: 'reply', id: 1, session: evil.session('control'), flags: 1 }, nothing),
        ),
      ),
  };
  it.each(Object.keys(lies))('with %s ends the session', async (name) => {
    const agent = await open();
    const program = await agent.exec({ process: 1, argv: ['x'], stdin: true, stdout: true }, never);
    const waiting = failureOf(program.wait(never));
    lies[name]?.();
    expect(await waiting).toMatchObject(unavailable);
    await expect(agent.ping(never)).rejects.toMatchObject(unavailable);
  });

  it.each([
    ['neither a code nor a signal', new FieldWriter()],
    ['a code that no program has', new FieldWriter().u32('exitCode', 256)],
    ['a number of another size', new FieldWriter().u8('exitCode', 1)],
    ['a time beyond time', new FieldWriter().u32('exitCode', 1).u64('cpuTime', 2n ** 64n - 1n)],
  ])('about an end with %s is not believed', async (_name, fields) => {
    const agent = await open();
    const program = await agent.exec({ process: 1, argv: ['x'] }, never);
    evil.say('control', 'exited', 1, fields.payload());
    await expect(program.wait(never)).rejects.toMatchObject(unavailable);
    await agent.ping(never);
  });

  it('about what it is, is not believed', async () => {
    const agent = await open();
    evil.answer = ({ id }) =>
      evil.say('control', 'reply', id, new FieldWriter().text('release', 'x').payload());
    await expect(agent.inspect(never)).rejects.toMatchObject(unavailable);
    await expect(agent.stat('/x', never)).rejects.toMatchObject(unavailable);
    await expect(agent.freeze(1, never)).rejects.toMatchObject(unavailable);
  });

  it('in its refusals says it without control characters and not for long', async () => {
    const agent = await open();
    evil.answer = ({ id }) => {
      const words = `\u001b[2J${'no '.repeat(400)}`;
      evil.say('control', 'error', id, new FieldWriter().u32('errno', 2).text('message', words).payload());
    };
    const refused = (await failureOf(agent.stat('/x', never))) as Error;
    expect(refused).toMatchObject({ class: 'NotFound', data: { errno: 'ENOENT' } });
    expect(refused.message.length).toBeLessThan(700);
    expect(refused.message).not.toMatch(/\p{Cc}/u);
  });

  it('about names in a directory is found out', async () => {
    for (const names of ['../x\0', 'a/b\0', '\0', 'unfinished', '..\0', `${'n'.repeat(256)}\0`]) {
      const one = new EvilMicrovm();
      const agent = await MicrovmAgent.open(one.lines, never);
      one.answer = ({ type, id }) => {
        if (type === 'cancel') return;
        one.say('control', 'reply', id, nothing);
        one.say('streams', 'data', 1, Buffer.from(names));
        one.say('streams', 'end', 1, nothing);
      };
      await expect(agent.list('/x', never)).rejects.toMatchObject(unavailable);
      one.close();
    }
  });
});

describe('an agent that floods', () => {
  it.each([
    ['answers', 'control', 'reply'],
    ['ends', 'control', 'exited'],
    ['credits', 'streams', 'credit'],
    ['stops', 'streams', 'stop'],
  ] as const)('with %s is cut off early', async (_name, line, type) => {
    await open();
    const frame = Buffer.concat(
      encodeFrame({ type, id: 1, session: evil.session(line) }, Buffer.alloc(4, 1)),
    );
    expect(
      await evil.flood(line, Buffer.concat(Array.from({ length: 100 }, () => frame)), 4 * MEBIBYTE),
    ).toBeLessThan(MEBIBYTE);
  });

  it('a stream that nobody reads, in the smallest pieces, costs no more than its window', async () => {
    const agent = await open();
    const program = await agent.exec({ process: 1, argv: ['x'], stdout: true }, never);
    const frame = Buffer.concat(
      encodeFrame({ type: 'data', id: 1, session: evil.session('streams') }, Buffer.from('x')),
    );
    const thousand = Buffer.concat(Array.from({ length: 1024 }, () => frame));
    const before = process.memoryUsage();
    for (let sent = 0; sent < OUTPUT_WINDOW_BYTES; sent += 1024) {
      if (!evil.bytes('streams', Buffer.from(thousand)))
        await new Promise((resolve) => setImmediate(resolve));
    }
    await agent.ping(never);
    const after = process.memoryUsage();
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(64 * MEBIBYTE);
    evil.say('streams', 'end', 1, nothing);
    let size = 0;
    for await (const chunk of program.stdout ?? []) size += (chunk as Buffer).length;
    expect(size).toBe(OUTPUT_WINDOW_BYTES);
    expect(agent.broken.aborted).toBe(false);
  });
});

/** Mostly null. */
const seldom = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: 8, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });

describe('an agent that says anything', () => {
  const types = Object.keys(frameTypes) as FrameType[];
  const saying = fc.record({
    line: fc.constantFrom('control' as const, 'streams' as const),
    type: fc.constantFrom(...types),
    id: fc.nat({ max: 6 }),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.constant(new FieldWriter().u32('exitCode', 3).payload()),
      fc.constant(Buffer.from([1, 0, 0, 0])),
    ),
    damage: seldom(fc.nat({ max: 40 })),
  });

  it('never makes the host hang, fail in another way or keep anything', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(saying, { minLength: 1, maxLength: 12 }), async (sayings) => {
        const one = new EvilMicrovm();
        one.answer = () => undefined;
        const agent = await MicrovmAgent.open(one.lines, never);
        const waits = [
          agent.exec({ process: 1, argv: ['x'], stdin: true, stdout: true, stderr: true }, never),
          agent.inspect(never),
          agent.list('/x', never),
          agent.processes(never),
        ].map((wait) => wait.catch((error: unknown) => error));
        for (const { line, type, id, payload, damage } of sayings) {
          const frame = Buffer.concat(encodeFrame({ type, id, session: one.session(line) }, payload));
          if (damage !== null && damage < frame.length) frame[damage] = (frame[damage] ?? 0) ^ 0x55;
          one.bytes(line, frame);
        }
        one.close();
        const failures = (await Promise.all(waits)).filter((outcome) => outcome instanceof Error);
        // Nobody waits for the end of a patience when the agent is gone.
        expect(failures.map((failure) => (failure as Partial<RoostError>).class)).not.toContain(
          'DeadlineExceeded',
        );
        expect(failures.filter((failure) => !('class' in failure))).toEqual([]);
        expect(agent.broken.aborted).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});

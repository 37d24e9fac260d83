import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ProcessEnd } from '../../../drivers/roost-agent/agent-process.ts';
import { type FollowedProcess, MainProgram } from '../../../drivers/roost-agent/main-program.ts';
import { deferred } from '../../../lib/abort.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const exited: ProcessEnd = {
  exitCode: 3,
  signal: undefined,
  cpuTimeMicroseconds: undefined,
  maxResidentBytes: undefined,
};

const aProcess = () => {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const end = deferred<ProcessEnd>();
  const process: FollowedProcess = {
    stdin,
    stdout,
    stderr,
    wait: () => end.promise,
    kill: async () => undefined,
    resize: async () => undefined,
  };
  const finish = (): void => {
    end.resolve(exited);
    stdout.end();
    stderr.end();
  };
  return { process, stdin, stdout, stderr, finish };
};

const textOf = async (stream: Readable | undefined): Promise<string> => {
  let text = '';
  for await (const chunk of stream ?? []) text += String(chunk);
  return text;
};

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

const follow = async (process: FollowedProcess, logPath: string, hasTerminal = false) =>
  await MainProgram.follow(process, { logPath, hasTerminal, broken: new AbortController().signal });

describe('the main program of a microVM', () => {
  it('is heard whole by whoever attaches whenever, and never twice', async () => {
    const directory = await testDirectory('m');
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ text: fc.string({ minLength: 1, maxLength: 20 }), pause: fc.nat(4) }), {
          maxLength: 12,
        }),
        fc.array(fc.nat(30), { maxLength: 4 }),
        async (said, moments) => {
          run += 1;
          const logPath = join(directory, String(run));
          await writeFile(logPath, 'before ');
          const { process, stdout, finish } = aProcess();
          const { main, done } = await follow(process, logPath, true);
          const heard = moments.map(async (moment) => {
            await turns(moment);
            return await textOf(main.attach(0).stdout);
          });
          for (const { text, pause } of said) {
            stdout.write(text);
            await turns(pause);
          }
          finish();
          await done;
          const all = `before ${said.map(({ text }) => text).join('')}`;
          expect(await readFile(logPath, 'utf8')).toBe(all);
          expect(await Promise.all(heard)).toEqual(moments.map(() => all));
        },
      ),
      { numRuns: 40 },
    );
  });

  it('tells its outputs apart to those who are attached, and its end', async () => {
    const directory = await testDirectory('m');
    const { process, stdout, stderr, finish } = aProcess();
    const { main, done } = await follow(process, join(directory, 'log'));
    const line = main.attach(undefined);
    stdout.write('out');
    stderr.write('err');
    finish();
    await done;
    expect([await textOf(line.stdout), await textOf(line.stderr)]).toEqual(['out', 'err']);
    expect(await line.ended).toEqual({ exitCode: 3 });
    expect(await textOf(main.attach(0).stdout)).toMatch(/^(outerr|errout)$/);
  });

  it('lets go of a reader that is far behind, and goes on', async () => {
    const directory = await testDirectory('m');
    const { process, stdout, finish } = aProcess();
    const { main, done } = await follow(process, join(directory, 'log'));
    const slow = main.attach(undefined);
    const closed = new Promise((resolve) => slow.stdout?.once('close', resolve));
    for (let written = 0; written < 40; written += 1)
      if (!stdout.write(Buffer.alloc(64 * 1024))) await once(stdout, 'drain');
    await closed;
    finish();
    await done;
    expect(slow.stdout?.errored?.message).toContain('too far behind');
  });

  it.each([
    [false, true],
    [true, false],
  ])(
    'has its input closed by an end of input only where that is no terminal (%s)',
    async (terminal, closed) => {
      const directory = await testDirectory('m');
      const { process, stdin, finish } = aProcess();
      const { main, done } = await follow(process, join(directory, 'log'), terminal);
      const [first, second] = [main.attach(undefined), main.attach(undefined)];
      first.stdin?.write('a');
      await new Promise<void>((resolve) => void second.stdin?.write('b', () => resolve()));
      await new Promise<void>((resolve) => void first.stdin?.end(resolve));
      expect(stdin.writableEnded).toBe(closed);
      expect(String(stdin.read())).toBe('ab');
      first.release();
      second.release();
      finish();
      await done;
    },
  );
});

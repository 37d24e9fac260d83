import { describe, expect, test } from 'vitest';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';

const never = new AbortController().signal;
const node = (script: string, ...args: readonly string[]): [string, ...string[]] => [
  process.execPath,
  '-e',
  script,
  ...args,
];

describe('runTool', () => {
  test('gives both outputs whole, with their last line end', async () => {
    const result = await runTool(node("console.log('out'); console.error('err')"), { signal: never });
    expect(result).toEqual({ stdout: 'out\n', stderr: 'err\n' });
  });

  test('passes arguments as they are: no shell looks at them', async () => {
    const argument = '$(touch x); `id` "quoted" \'single\' *\n&&';
    const { stdout } = await runTool(node('process.stdout.write(process.argv[1])', argument), {
      signal: never,
    });
    expect(stdout).toBe(argument);
  });

  test('hands over the input and the environment', async () => {
    const script = "process.stdin.on('data', (c) => process.stdout.write(process.env.WORD + c))";
    const { stdout } = await runTool(node(script), {
      signal: never,
      input: 'there',
      env: { WORD: 'hello ' },
    });
    expect(stdout).toBe('hello there');
  });

  test('a tool that fails is an ExecError with its exit code and last words', async () => {
    const error = await runTool(node("console.error('no such pool'); process.exit(3)"), {
      signal: never,
    }).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ExecError);
    expect(error).toMatchObject({ exitCode: 3, timedOut: false, stderr: 'no such pool\n' });
    expect(String(error)).toContain('exited with 3: no such pool');
  });

  test('a tool that does not exist is an ExecError that says so', async () => {
    const error = await runTool(['/nonexistent/tool'], { signal: never }).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ExecError);
    expect(String(error)).toContain('/nonexistent/tool could not be run');
  });

  test('a tool that was ended by a signal names it', async () => {
    const error = await runTool(node("process.kill(process.pid, 'SIGTERM')"), { signal: never }).catch(
      (error: unknown) => error,
    );
    expect(error).toMatchObject({ terminatedBy: 'SIGTERM' });
  });

  test('a tool that takes too long is ended and says so', async () => {
    const error = await runTool(node('setInterval(() => {}, 1000)'), { signal: never, timeoutMs: 50 }).catch(
      (error: unknown) => error,
    );
    expect(error).toMatchObject({ timedOut: true });
  });

  test("an abort ends the tool and gives the signal's own reason", async () => {
    const controller = new AbortController();
    const reason = new Error('not needed any more');
    const running = runTool(node("console.log('up'); setInterval(() => {}, 1000)"), {
      signal: controller.signal,
      onStdout: () => controller.abort(reason),
    });
    await expect(running).rejects.toBe(reason);
  });

  test('nothing is run for a signal that has aborted already', async () => {
    const reason = new Error('too late');
    await expect(runTool(['/nonexistent/tool'], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test('what a tool that was ended has left running is not waited for without end', async () => {
    const controller = new AbortController();
    const reason = new Error('not needed any more');
    let left = 0;
    const script =
      "process.stdout.write(`${require('child_process').spawn('sleep', ['60'], {stdio: 'inherit', detached: true}).pid}\\n`); setInterval(() => {}, 1000)";
    const running = runTool(node(script), {
      signal: controller.signal,
      onStdout: (text) => {
        left = Number(text);
        controller.abort(reason);
      },
    });
    await expect(running).rejects.toBe(reason);
    process.kill(left, 'SIGKILL');
  });

  test('a program is found by its name, with the environment of this process', async () => {
    const { stdout } = await runTool(['sh', '-c', 'echo "$PATH"; pwd'], { signal: never, cwd: '/' });
    expect(stdout).toBe(`${process.env['PATH']}\n/\n`);
    const missing = await runTool(['no-such-tool'], { signal: never }).catch((error: unknown) => error);
    expect(missing).toMatchObject({ wasNotFound: true });
  });

  test('more output than allowed is a failure, not a truncation', async () => {
    const run = runTool(node("process.stdout.write('x'.repeat(10_000))"), {
      signal: never,
      maxOutputBytes: 100,
    });
    await expect(run).rejects.toBeInstanceOf(ExecError);
  });
});

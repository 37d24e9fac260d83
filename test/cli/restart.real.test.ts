/** What waits for something goes on over a restart of the daemon. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Interrupted } from '../../cli/failure.ts';
import { endedOperation, FakeDaemon, GUEST, NO_REPLY, NOW, OPERATION, Refusal } from './fake-daemon.ts';
import { type Ran, type RunOptions, runCli } from './run-cli.ts';

let daemon: FakeDaemon;

const PATIENCE_MS = 60_000;
const AWAY = 'roost: roostd is away; waiting until it is back (Ctrl-C ends the waiting only)\n';
const BACK = 'roost: roostd is back\n';

const roost = (line: string, options: RunOptions = {}): Promise<Ran> =>
  runCli(line.split(' '), {
    env: { ROOST_SOCKET: daemon.socketPath },
    patienceMs: PATIENCE_MS,
    ...options,
  });

/** The daemon goes at its first call of a command, before it answers, and comes back when the command line says so. */
const goAt = (command: string, then: () => unknown): { readonly onStderr: (text: string) => void } => {
  let came = 0;
  let returning: Promise<void> | undefined;
  daemon.handle(command, () => {
    came += 1;
    if (came > 1) return then();
    void daemon.goAway();
    return NO_REPLY;
  });
  return {
    onStderr: (text) => {
      if (text.includes('away')) returning ??= daemon.comeBack();
    },
  };
};

beforeEach(async () => {
  daemon = await FakeDaemon.start();
});
afterEach(() => daemon[Symbol.asyncDispose]());

describe('a change', () => {
  it('is waited for by its id, and ends as its operation does', async () => {
    const ran = await roost(
      'start web1',
      goAt('operation-wait', () => endedOperation()),
    );
    expect(ran).toEqual({ code: 0, stdout: 'web1 started\n', stderr: AWAY + BACK });
    expect(daemon.calls.map(({ command }) => command)).toEqual([
      'guest-start',
      'operation-wait',
      'operation-wait',
    ]);
    expect(daemon.calls.at(-1)?.args).toEqual({ operation: OPERATION });
  });

  it('that failed meanwhile fails the command, with its error', async () => {
    const error = { class: 'HostError', desc: 'QEMU is gone' };
    const ran = await roost(
      'start web1',
      goAt('operation-wait', () => endedOperation({ state: 'failed', error })),
    );
    expect(ran).toMatchObject({ code: 1, stdout: '', stderr: `${AWAY}${BACK}roost: QEMU is gone\n` });
  });

  it('whose acceptance was not heard of is asked for again under the same key', async () => {
    const ran = await roost(
      'start web1',
      goAt('guest-start', () => ({ operation: OPERATION, id: GUEST })),
    );
    expect(ran).toMatchObject({ code: 0, stdout: 'web1 started\n' });
    expect(daemon.keys).toHaveLength(2);
    expect(new Set(daemon.keys).size).toBe(1);
  });

  it('is waited for also when the daemon says that it is stopping', async () => {
    let asked = 0;
    daemon.handle('operation-wait', () => {
      asked += 1;
      if (asked > 1) return endedOperation();
      throw new Refusal({
        class: 'Unavailable',
        desc: 'The daemon is stopping',
        data: { daemon: 'stopping' },
      });
    });
    expect(await roost('start web1')).toEqual({ code: 0, stdout: 'web1 started\n', stderr: AWAY + BACK });
  });

  it('of several guests tells once that the daemon is away', async () => {
    let asked = 0;
    let returning: Promise<void> | undefined;
    daemon.handle('operation-wait', () => {
      asked += 1;
      if (asked === 2) void daemon.goAway();
      return asked > 2 ? endedOperation() : NO_REPLY;
    });
    const ran = await roost('start a b', {
      onStderr: (text) => {
        if (text.includes('away')) returning ??= daemon.comeBack();
      },
    });
    expect(ran).toMatchObject({ code: 0, stderr: AWAY + BACK });
    expect(ran.stdout.split('\n').sort()).toEqual(['', 'a started', 'b started']);
  });

  it('waits no longer after an interrupt, and says how to go on', async () => {
    const controller = new AbortController();
    goAt('operation-wait', () => endedOperation());
    const ran = await roost('start web1', {
      signal: controller.signal,
      onStderr: (text) => {
        if (text.includes('away')) controller.abort(new Interrupted());
      },
    });
    expect(ran).toMatchObject({ code: 130, stdout: '' });
    expect(ran.stderr).toContain(`roost operation wait ${OPERATION}`);
    await daemon.comeBack();
  });

  it('is given up after a time, with what became of it', async () => {
    goAt('operation-wait', () => endedOperation());
    const ran = await roost('start web1', { patienceMs: 1 });
    expect(ran).toMatchObject({ code: 4, stdout: '' });
    expect(ran.stderr).toContain('did not come back');
    expect(ran.stderr).toContain('roost operation ls');
    await daemon.comeBack();
  });

  it('has its progress shown again on a terminal', async () => {
    const step = { operation: OPERATION, kind: 'guest-start', subject: 'web1', state: 'running' };
    let subscribed = 0;
    daemon.handle('events-subscribe', (_, peer) => {
      subscribed += 1;
      if (subscribed === 2) peer.emit('OPERATION_CHANGED', { ...step, step: 'resume' });
      return { lastSequence: 7 };
    });
    let finish: () => void = () => undefined;
    const shown = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let asked = 0;
    daemon.handle('operation-wait', (_, peer) => {
      asked += 1;
      if (asked === 1) void daemon.goAway();
      else void shown.then(() => peer.answer(endedOperation()));
      return NO_REPLY;
    });
    let returning: Promise<void> | undefined;
    const ran = await roost('start web1', {
      isTTY: true,
      onStderr: (text) => {
        if (text.includes('away')) returning ??= daemon.comeBack();
        if (text.includes('web1: resume')) finish();
      },
    });
    expect(ran).toMatchObject({ code: 0, stdout: 'web1 started\n' });
  });
});

describe('other waiting', () => {
  it('of wait keeps to the time that it was given', async () => {
    const view = (await import('./fake-daemon.ts')).aGuest({ ready: { kind: 'agent', at: NOW } });
    const ran = await roost(
      'wait web1 --timeout 1h',
      goAt('guest-wait', () => view),
    );
    expect(ran).toMatchObject({ code: 0, stderr: AWAY + BACK });
    const [first, second] = daemon.calls.map(({ args }) => Number(args['timeoutMs']));
    expect(first).toBeLessThanOrEqual(3_600_000);
    expect(second).toBeLessThanOrEqual(first ?? 0);
    expect(second).toBeGreaterThan(0);
  });

  it('of operation wait ends with its result', async () => {
    const ran = await roost(
      `operation wait ${OPERATION}`,
      goAt('operation-wait', () => endedOperation()),
    );
    expect(ran).toMatchObject({ code: 0, stderr: AWAY + BACK });
  });

  it('of logs --follow goes on where it was', async () => {
    const controller = new AbortController();
    const part = (text: string, offset: number): object => ({
      text,
      offset,
      nextOffset: offset + text.length,
      sizeBytes: offset + text.length,
    });
    let asked = 0;
    let returning: Promise<void> | undefined;
    daemon.handle('query-guest-log', ({ offset }) => {
      asked += 1;
      if (asked === 1) return part('one ', 0);
      if (asked > 2) return part('two', Number(offset));
      void daemon.goAway();
      return NO_REPLY;
    });
    const ran = await roost('logs -f web1', {
      signal: controller.signal,
      onStderr: (text) => {
        if (text.includes('away')) returning ??= daemon.comeBack();
      },
      onStdout: (text) => {
        if (text.endsWith('two')) controller.abort(new Interrupted());
      },
    });
    expect(ran).toEqual({ code: 130, stdout: 'one two', stderr: AWAY + BACK });
  });

  it('of a daemon that never was there is none', async () => {
    await daemon.goAway();
    expect(await roost('start web1')).toMatchObject({ code: 4 });
    await daemon.comeBack();
  });
});

describe('events --follow', () => {
  const exited = { guest: GUEST, name: 'web1', cause: 'crashed' };

  it('goes on behind the last event, and says what is no longer kept', async () => {
    const controller = new AbortController();
    const asked: unknown[] = [];
    let returning: Promise<void> | undefined;
    daemon.handle('events-subscribe', ({ since }, peer) => {
      asked.push(since);
      if (since === undefined) {
        peer.emit('GUEST_EXITED', exited, 8);
        setImmediate(() => void daemon.goAway());
      } else {
        peer.emit('EVENTS_LOST', { from: 9, to: 11 }, 11);
        peer.emit('GUEST_EXITED', exited, 12);
      }
      return { lastSequence: 8 };
    });
    const ran = await roost('events --follow', {
      signal: controller.signal,
      onStderr: (text) => {
        if (text.includes('away')) returning ??= daemon.comeBack();
      },
      onStdout: (text) => {
        if (text.includes('\n12 ')) controller.abort(new Interrupted());
      },
    });
    expect(asked).toEqual([undefined, 8]);
    expect(ran.code).toBe(130);
    expect(ran.stdout.split('\n').map((line) => line.split('  ')[0])).toEqual(['8', '11', '12', '']);
    expect(ran.stderr).toBe(`${AWAY}${BACK}Events 9 to 11 are no longer kept.\n`);
  });

  it('without any event yet goes on from where it was when it began', async () => {
    const controller = new AbortController();
    const asked: unknown[] = [];
    let returning: Promise<void> | undefined;
    daemon.handle('events-subscribe', ({ since }, peer) => {
      asked.push(since);
      if (since === undefined) setImmediate(() => void daemon.goAway());
      else peer.emit('GUEST_EXITED', exited, 42);
      return { lastSequence: 41 };
    });
    await roost('events --follow', {
      signal: controller.signal,
      onStderr: (text) => {
        if (text.includes('away')) returning ??= daemon.comeBack();
      },
      onStdout: () => controller.abort(new Interrupted()),
    });
    expect(asked).toEqual([undefined, 41]);
  });
});

describe('a daemon that stands still', () => {
  beforeEach(() => {
    daemon.standsStill = true;
  });

  it('is told of, at once where nothing is waited for', async () => {
    const ran = await roost('ls', { greetingTimeoutMs: 1 });
    expect(ran).toMatchObject({ code: 4, stdout: '' });
    expect(ran.stderr).toContain('does not answer: for 0.001 s it said nothing');
    expect(ran.stderr).toContain('systemctl status roostd');
  });

  it('is waited for by what waits', async () => {
    daemon.handle('guest-wait', () => ({ guest: GUEST, state: 'running' }));
    const ran = await roost('wait --until running web1', {
      greetingTimeoutMs: 100,
      onStderr: (text) => {
        if (text.includes('away')) daemon.standsStill = false;
      },
    });
    expect(ran).toMatchObject({ code: 0, stderr: AWAY + BACK });
  });
});

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ServiceManager, takeInheritedSocket, watchdogTimeoutMs } from '../../daemon/service-manager.ts';
import { silentLog } from '../../lib/log.ts';
import { listenUnix } from '../../native/index.ts';
import { testDirectory } from '../harness/test-directory.ts';

const root = join(import.meta.dirname, '../..');

describe('what the manager is told', () => {
  const told: string[] = [];
  const manager = (): ServiceManager =>
    new ServiceManager({ log: silentLog(), notify: (state) => told.push(state) > 0 });

  beforeEach(() => {
    told.length = 0;
    vi.useFakeTimers();
  });
  afterEach(() => void vi.useRealTimers());

  test('the watchdog is fed at once and then twice in its time, with what there is to see', () => {
    let guests = 1;
    const watched = manager();
    watched.watch(10_000, () => `${guests} guests`);
    guests = 2;
    vi.advanceTimersByTime(10_000);
    expect(told).toEqual([
      'WATCHDOG=1\nSTATUS=1 guests',
      'WATCHDOG=1\nSTATUS=2 guests',
      'WATCHDOG=1\nSTATUS=2 guests',
    ]);
    watched.stopping();
    vi.advanceTimersByTime(60_000);
    expect(told.slice(3)).toEqual(['STOPPING=1\nSTATUS=Stopping; guests run on']);
  });

  test('an inventory that does not answer leaves the watchdog hungry, and is fed again when it does', () => {
    let answers = false;
    manager().watch(10_000, () => {
      if (!answers) throw new Error('disk I/O error');
      return 'well';
    });
    vi.advanceTimersByTime(10_000);
    expect(told.filter((state) => state.includes('WATCHDOG'))).toEqual([]);
    expect(told).toContain('STATUS=The inventory does not answer');
    answers = true;
    vi.advanceTimersByTime(5_000);
    expect(told.at(-1)).toBe('WATCHDOG=1\nSTATUS=well');
  });

  test('a manager that does not listen fails nothing', () => {
    const deaf = new ServiceManager({
      log: silentLog(),
      notify: () => {
        throw new Error('EAGAIN');
      },
    });
    expect(() => {
      deaf.ready('x');
      deaf.watch(1000, () => 'x');
      deaf.stopping();
    }).not.toThrow();
  });
});

describe('what the manager hands over', () => {
  test.each([
    ['nothing', {}],
    ['no socket', { LISTEN_PID: '7', LISTEN_FDS: '0' }],
    ['a socket for another process', { LISTEN_PID: '8', LISTEN_FDS: '1' }],
  ])('%s', (_, env) => {
    expect(takeInheritedSocket({ ...env }, 7)).toBeUndefined();
  });

  test('more than one socket, or none at its place, is refused with the setting to look at', () => {
    for (const count of ['2', 'x'])
      expect(() => takeInheritedSocket({ LISTEN_PID: '7', LISTEN_FDS: count }, 7)).toThrow(
        expect.objectContaining({ class: 'InvalidArgument', hint: expect.stringContaining('ListenStream=') }),
      );
  });

  test('no child takes the variables for its own', () => {
    const env = { LISTEN_PID: '8', LISTEN_FDS: '1', LISTEN_FDNAMES: 'roostd.socket', PATH: '/bin' };
    takeInheritedSocket(env, 7);
    expect(env).toEqual({ PATH: '/bin' });
  });

  test.each([
    [{}, undefined],
    [{ WATCHDOG_USEC: '30000000' }, 30_000],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '7' }, 30_000],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, undefined],
    [{ WATCHDOG_USEC: '0' }, undefined],
    [{ WATCHDOG_USEC: 'soon' }, undefined],
  ])('a watchdog by %j', (env, timeoutMs) => {
    expect(watchdogTimeoutMs(env, 7)).toBe(timeoutMs);
  });
});

test('roostd serves on the socket that it was handed, and leaves its file when it goes', async () => {
  const directory = await testDirectory('activated');
  const socketPath = join(directory, 'roost.sock');
  const descriptor = listenUnix(socketPath, { mode: 0o660, backlog: 8 });
  const { ino } = statSync(socketPath);
  // The shell is there because the variable has to name the process that the daemon becomes.
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"',
      'sh',
      process.execPath,
      join(root, 'bin/roostd'),
      '--state-dir',
      join(directory, 'state'),
      '--run-dir',
      join(directory, 'run'),
    ],
    { stdio: ['ignore', 'pipe', 'inherit', descriptor] },
  );
  closeSync(descriptor);
  // Before the daemon is up: the connection waits for it.
  const client = connect(socketPath);
  const [greeting] = (await once(client, 'data')) as [Buffer];
  expect(JSON.parse(greeting.toString())).toHaveProperty('QMP');
  client.destroy();
  child.kill('SIGTERM');
  await once(child, 'exit');
  expect(statSync(socketPath).ino).toBe(ino);
});

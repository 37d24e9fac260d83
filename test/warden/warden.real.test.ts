/** The warden over a stand-in for liblxc: what it says and when, and how it ends. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { classifySilence } from '../../drivers/processes/qmp/silence.ts';
import { MicrovmAgent } from '../../drivers/roost-agent/microvm-agent.ts';
import { describeWith } from '../harness/needs.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { received, type WardenOptions, WardenProcess } from './warden-process.ts';

const { signal } = new AbortController();
const sh = (script: string): readonly string[] => ['/bin/sh', '-c', script];
/** Ends when it is asked to, as the halt signal asks. */
const idle = sh('trap "exit 0" PWR; echo up; while :; do sleep 1000 & wait; done');

const childrenOf = async (pid: number): Promise<readonly number[]> =>
  (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').filter(Boolean).map(Number);

const killChild = async (pid: number, nth = 0): Promise<void> => {
  process.kill((await childrenOf(pid))[nth] ?? -1, 'SIGKILL');
};

/** Runs one to its end. */
const end = async (
  options: WardenOptions,
  act: (warden: WardenProcess) => Promise<void> = async () => undefined,
): Promise<{ readonly code: number | null; readonly events: unknown; readonly words: string }> => {
  await using warden = await WardenProcess.start(options);
  const monitor = await warden.monitor();
  await monitor.execute('cont', {}, { signal }).catch(() => undefined);
  await act(warden);
  const { code } = await warden.exit;
  return { code, events: (await warden.told()).slice(-2), words: await warden.read('process.log') };
};

describeWith(['root'], 'a warden', () => {
  it('waits, runs and ends, and says so in the event log', async () => {
    await using warden = await WardenProcess.start({ init: idle });
    const monitor = await warden.monitor();
    expect(monitor.greeting.version.package).toBe('roost-warden');
    const status = () => monitor.execute('query-status', {}, { signal });
    expect(await status()).toEqual({ status: 'prelaunch', running: false });
    // What is to be lxc-start, and neither that nor a keeper of the lock yet.
    const [standingBy = 0, ...others] = await childrenOf(warden.pid);
    expect(others).toEqual([]);
    expect(await readlink(`/proc/${standingBy}/exe`)).toBe(await readlink(`/proc/${warden.pid}/exe`));
    await expect.poll(() => readdir(`/proc/${standingBy}/fd`)).toEqual(['0', '1', '2', '3']);
    expect(await readlink(`/proc/${standingBy}/fd/3`)).toMatch(/^pipe:/);
    await monitor.execute('stop', {}, { signal });
    await expect(monitor.execute('system_powerdown', {}, { signal })).rejects.toThrow('no init');
    await monitor.execute('cont', {}, { signal });
    expect(await status()).toEqual({ status: 'running', running: true });
    await monitor.execute('cont', {}, { signal });
    // It has its trap by then.
    await expect.poll(() => warden.read('console.log')).toBe('up\n');
    await monitor.execute('system_powerdown', {}, { signal });
    expect(await warden.exit).toEqual({ code: 0, signal: null });
    expect(await warden.told()).toEqual([
      ['RESUME', {}],
      ['POWERDOWN', {}],
      ['SHUTDOWN', { guest: true, reason: 'guest-shutdown' }],
      ['CONTAINER_END', { status: 0 }],
    ]);
    expect(await warden.read('lock')).toMatch(new RegExp(`^${warden.pid} \\d+ [0-9a-f-]{36}\n$`));
  });

  it.each([
    ['with status 0', 'exit 0', 'guest-shutdown', { status: 0 }],
    ['with another status', 'exit 3', 'guest-panic', { status: 3 }],
    ['powered off', 'exit 130', 'guest-shutdown', { signal: 2 }],
    ['by a fault', 'kill -SEGV $$', 'guest-panic', { signal: 11 }],
    ['by a hand', 'kill -KILL $$', 'host-signal', { signal: 9 }],
  ])('tells of an end %s', async (_how, script, reason, how) => {
    const { code, events } = await end({ init: sh(script) });
    expect({ code, events }).toEqual({
      code: 0,
      events: [
        ['SHUTDOWN', { guest: reason !== 'host-signal', reason }],
        ['CONTAINER_END', how],
      ],
    });
  });

  it('fails where nothing can be begun, in the first words of liblxc', async () => {
    await using warden = await WardenProcess.start({ init: ['never'] });
    const monitor = await warden.monitor();
    const words = 'lxc-start ended with status 1 before the container ran: Nothing is the matter';
    await expect(monitor.execute('cont', {}, { signal })).rejects.toThrow(words);
    expect(await warden.exit).toEqual({ code: 1, signal: null });
    expect((await warden.told())[0]).toEqual(['SHUTDOWN', { guest: false, reason: 'host-error' }]);
    expect(await warden.read('process.log')).toMatch(new RegExp(`roost-warden: ${words}\n$`));
  });

  it.each<[string, WardenOptions, string]>([
    ['a configuration', { config: 'lxc.nosuch = 1' }, 'Unsupported config key "lxc.nosuch"'],
    ['an image', { image: '/no/such' }, 'roost-warden: open /no/such: No such file or directory'],
    ['a squashfs', { image: '/bin/sh' }, 'roost-warden: read /bin/sh as a squashfs: '],
    ['a directory', { lower: '/no/such' }, 'roost-warden: /no/such: No such file or directory'],
    ['a range', { lower: '/proc' }, 'takes no range of ids'],
    ['liblxc', { more: ['--programs', '/no'] }, '--programs is given twice'],
  ])('says what is wrong with %s, and does not begin', async (_what, options, words) => {
    await using warden = await WardenProcess.start(options);
    expect(await warden.exit).toEqual({ code: 125, signal: null });
    expect(await warden.read('process.log')).toContain(words);
    expect(await warden.told()).toEqual([]);
  });

  it.each([
    ['as long as there are any', 75],
    ['by another lxc-start, where that fails', 76],
  ])('goes on over reboots inside, %s', async (_how, status) => {
    const directory = await testDirectory('reboots');
    const counts = `echo run; echo x >>"$0"; [ $(wc -l <"$0") -lt 4 ] && exit ${status}; exit 0`;
    const { code, events } = await end(
      { init: [...sh(counts), join(directory, 'count')] },
      async (warden) => {
        for (let reboot = 0; reboot < 3; reboot += 1)
          expect(await warden.event('RESET')).toEqual({ guest: true, reason: 'guest-reset' });
        await warden.exit;
        expect(await warden.read('console.log')).toBe('run\n'.repeat(4));
      },
    );
    expect({ code, events }).toEqual({
      code: 0,
      events: [
        ['SHUTDOWN', { guest: true, reason: 'guest-shutdown' }],
        ['CONTAINER_END', { status: 0 }],
      ],
    });
  });

  it('resets, and quits, also before it ever ran', async () => {
    await using warden = await WardenProcess.start({ init: idle });
    const monitor = await warden.monitor();
    const reset = { guest: false, reason: 'host-qmp-system-reset' };
    await monitor.execute('system_reset', {}, { signal });
    expect(await warden.event('RESET')).toEqual(reset);
    await monitor.execute('cont', {}, { signal });
    await monitor.execute('system_reset', {}, { signal });
    expect(await warden.event('RESET')).toEqual(reset);
    expect(await monitor.execute('query-status', {}, { signal })).toMatchObject({ status: 'running' });
    await monitor.execute('quit' as 'stop', {}, { signal });
    expect(await warden.event('SHUTDOWN')).toEqual({ guest: false, reason: 'host-qmp-quit' });
    expect(await warden.event('CONTAINER_END')).toMatchObject({ signal: 9 });
    expect(await warden.exit).toEqual({ code: 0, signal: null });
    await using idler = await WardenProcess.start({ init: idle });
    await (await idler.monitor()).execute('quit' as 'stop', {}, { signal });
    expect(await idler.exit).toEqual({ code: 0, signal: null });
    expect(await idler.told()).toEqual([['SHUTDOWN', { guest: false, reason: 'host-qmp-quit' }]]);
  });

  it('obeys a signal, and says whose', async () => {
    const { code, events, words } = await end({ init: idle }, async (warden) => warden.kill('SIGTERM'));
    expect({ code, words }).toEqual({
      code: 0,
      words: expect.stringContaining(`roost-warden: terminating on signal 15 from pid ${process.pid}\n`),
    });
    expect(events).toMatchObject([
      ['SHUTDOWN', { reason: 'host-signal' }],
      ['CONTAINER_END', { signal: 9 }],
    ]);
  });

  it('ends when somebody kills lxc-start, or the init, and with it what is left', async () => {
    const asked = {
      code: 0,
      events: [
        ['SHUTDOWN', { guest: false, reason: 'host-signal' }],
        ['CONTAINER_END', { signal: 9 }],
      ],
    };
    let init = 0;
    const starter = await end({ init: idle }, async (warden) => {
      init = (await childrenOf((await childrenOf(warden.pid))[0] ?? 0))[0] ?? 0;
      await killChild(warden.pid);
    });
    expect(starter).toMatchObject(asked);
    await expect(readlink(`/proc/${init}/exe`)).rejects.toThrow('ENOENT');
    const killed = await end({ init: idle }, async (warden) =>
      killChild((await childrenOf(warden.pid))[0] ?? 0),
    );
    expect(killed).toMatchObject(asked);
  });

  it('takes what it began with it when it is killed itself', async () => {
    await using warden = await WardenProcess.start({ init: ['/bin/sleep', '1000'] });
    await (await warden.monitor()).execute('cont', {}, { signal });
    const [starter = 0] = await childrenOf(warden.pid);
    const [init = 0] = await childrenOf(starter);
    warden.kill('SIGKILL');
    await warden.exit;
    // The kernel's doing, which takes its moment.
    for (const pid of [starter, init])
      await expect.poll(() => readlink(`/proc/${pid}/exe`).catch(() => 'gone')).toBe('gone');
    await warden.clear();
  });

  it('stands still under SIGSTOP while its container goes on', async () => {
    await using warden = await WardenProcess.start({
      init: sh('read line; echo "$line" >"$0"; exec sleep 1000'),
      lower: '/bin',
    });
    const monitor = await warden.monitor();
    await monitor.execute('cont', {}, { signal });
    const starter = (await childrenOf(warden.pid))[0] ?? 0;
    warden.kill('SIGSTOP');
    await expect.poll(() => classifySilence(warden.pid)).toBe('stopped');
    const answer = monitor.execute('query-status', {}, { signal });
    expect(await classifySilence(starter)).toBe('busy');
    warden.kill('SIGCONT');
    expect(await answer).toMatchObject({ status: 'running' });
  });

  it('runs the agent, and again when it has ended', async () => {
    await using warden = await WardenProcess.start({ init: idle, agent: true });
    const monitor = await warden.monitor();
    const isOpen = async (): Promise<boolean | undefined> =>
      (await monitor.execute('query-chardev', {}, { signal })).find(({ label }) => label === 'agent')?.[
        'frontend-open'
      ];
    expect(await isOpen()).toBe(false);
    await monitor.execute('cont', {}, { signal });
    expect(await warden.event('VSERPORT_CHANGE')).toEqual({ id: 'agent0', open: true });
    expect(await isOpen()).toBe(true);
    const sockets = { control: warden.path('run/control'), streams: warden.path('run/streams') };
    const ping = async (): Promise<void> => {
      const agent = await MicrovmAgent.connect(sockets, signal);
      await agent.ping(signal);
      agent.close();
    };
    await ping();
    await killChild(warden.pid, 1);
    expect(await warden.event('VSERPORT_CHANGE')).toEqual({ id: 'agent0', open: false });
    expect(await warden.event('VSERPORT_CHANGE')).toEqual({ id: 'agent0', open: true });
    await ping();
    await monitor.execute('system_reset', {}, { signal });
    expect(await warden.event('VSERPORT_CHANGE')).toEqual({ id: 'agent0', open: false });
    expect(await warden.event('VSERPORT_CHANGE')).toEqual({ id: 'agent0', open: true });
    await ping();
  });
});

describeWith(['root'], 'the console of a warden', () => {
  it('goes to the log when nobody is there, and to the one who is there', async () => {
    await using warden = await WardenProcess.start({
      init: sh('echo first; while read -r line; do echo "<$line>"; done'),
    });
    const monitor = await warden.monitor();
    await monitor.execute('cont', {}, { signal });
    await expect.poll(() => warden.read('console.log')).toContain('first');
    const one = await warden.line('console.sock');
    one.write('a\n');
    expect(await received(one, '<a>\n')).toBe('<a>\n');
    const other = await warden.line('console.sock');
    other.write('b\n');
    one.write('c\n');
    expect(await received(one, '<c>\n')).toBe('<c>\n');
    one.destroy();
    expect(await received(other, '<b>')).toContain('<b>');
    // One that sends no more goes on reading.
    other.end('d\n');
    expect(await received(other, '<d>')).toContain('<d>');
    expect(await warden.read('console.log')).toMatch(/^first\n<a>\n<c>\n<b>\n<d>/);
  });

  it('waits for no client: a slow one is let go of, and the log has all', async () => {
    const bytes = 3 * 1024 * 1024;
    await using warden = await WardenProcess.start({
      init: sh(`read go; head -c ${bytes} /dev/zero | tr '\\0' x; echo end; exec sleep 1000`),
    });
    const monitor = await warden.monitor();
    await monitor.execute('cont', {}, { signal });
    const slow = await warden.line('console.sock');
    slow.pause();
    slow.write('go\n');
    await expect
      .poll(async () => (await warden.read('console.log')).endsWith('xend\n'), { timeout: 60_000 })
      .toBe(true);
    expect((await warden.read('console.log')).length).toBe(bytes + 4);
    let got = 0;
    slow.on('data', (chunk: Buffer) => {
      got += chunk.length;
    });
    slow.resume();
    await new Promise((resolve) => slow.once('close', resolve));
    expect(got).toBeLessThan(bytes);
    // And the next one is served.
    const next = await warden.line('console.sock');
    next.write('anything');
    expect(await monitor.execute('query-status', {}, { signal })).toMatchObject({ status: 'running' });
  });

  it('keeps what nobody in the container reads, and stops reading from the client', async () => {
    await using warden = await WardenProcess.start({ init: sh('exec sleep 1000') });
    const monitor = await warden.monitor();
    await monitor.execute('cont', {}, { signal });
    const client = await warden.line('console.sock');
    let taken = false;
    client.write(Buffer.alloc(4 * 1024 * 1024, 'x'), () => {
      taken = true;
    });
    expect(await monitor.execute('query-status', {}, { signal })).toMatchObject({ status: 'running' });
    expect(taken).toBe(false);
  });
});

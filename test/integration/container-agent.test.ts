/** Programs, files and processes in a container, by the agent that its warden runs in it. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import {
  agentUp,
  beginWithBusybox,
  container,
  execIn,
  initOf,
  initPidOf,
  shellIn,
  startContainer,
  watchEvents,
} from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { Terminal } from '../harness/terminal.ts';
import { testDirectory } from '../harness/test-directory.ts';

const CTRL_C = '\u0003';

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'in a container', () => {
  it('a program is run as if it ran here: its streams apart, its exit code, the signal that ended it', async () => {
    const at = await beginWithBusybox();
    await startContainer(at, 'one');
    const exec = execIn(at, 'one');
    expect(await exec('sh', '-c', 'echo out; echo err >&2; id -u; pwd; exit 3')).toEqual({
      code: 3,
      stdout: 'out\n0\n/\n',
      stderr: 'err\n',
    });
    expect(await exec('true')).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(await exec('sh', '-c', 'kill -9 $$')).toMatchObject({ code: 128 + 9 });
    expect(await exec('sh', '-c', 'kill -TERM $$')).toMatchObject({ code: 128 + 15 });
    expect(await exec('no-such-program')).toMatchObject({ code: 127, stdout: '' });
    expect(await exec('/etc/passwd')).toMatchObject({ code: 126, stdout: '' });
    expect(
      await runRoost(at.home, [
        'exec',
        '-u',
        'nobody',
        '-w',
        '/tmp',
        '-e',
        'A=b',
        'one',
        'sh',
        '-c',
        'id -u; pwd; echo $A',
      ]),
    ).toEqual({ code: 0, stdout: '65534\n/tmp\nb\n', stderr: '' });
    const bytes = randomBytes(300_000).toString('base64');
    const echoed = await runRoost(at.home, ['exec', '-i', 'one', 'cat'], { stdin: bytes });
    expect({ ...echoed, stdout: echoed.stdout === bytes }).toEqual({ code: 0, stdout: true, stderr: '' });
    await leaveNothing(at);
  });

  it('a terminal has its size, passes Ctrl-C on, and is resized', async () => {
    const at = await beginWithBusybox();
    await startContainer(at, 'one');
    const socket = join(at.home.runDirectory, 'roost.sock');
    const terminal = new Terminal(
      `stty rows 31 cols 77; echo "on $(tty)"; ROOST_SOCKET="${socket}" "${process.execPath}" "${roostProgram}" exec -it one sh; echo "code $?"`,
    );
    await terminal.seen('# ');
    terminal.type('stty size; test -t 0; echo "is terminal: $?"\r');
    await terminal.seen('31 77');
    await terminal.seen('is terminal: 0');
    terminal.type('sleep 1000\r');
    await terminal.seen('sleep 1000');
    // Its echo comes from the line discipline; the program has to be there to be ended.
    while (!(await shellIn(at, 'one')('ps')).includes('sleep 1000'));
    terminal.type(`${CTRL_C}echo ended by $?\r`);
    await terminal.seen('ended by 130');
    terminal.type('while :; do stty size; sleep 0.1; done\r');
    const here = /on (\/dev\/pts\/\d+)/.exec(terminal.output)?.[1] ?? 'none';
    execFileSync('stty', ['-F', here, 'rows', '40', 'cols', '101']);
    await terminal.seen('40 101');
    terminal.type(`${CTRL_C}exit 4\r`);
    await terminal.ended();
    expect(terminal.output).toMatch(/code 4\r\n/);
    await leaveNothing(at);
  });

  it('a program that is detached outlives the session and the daemon, and can be signalled', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'one');
    const detached = await runRoost(home, [
      'exec',
      '-d',
      'one',
      'sh',
      '-c',
      'echo $$ >/run/pid; exec sleep 1000',
    ]);
    const pid = await shellIn(at, 'one')('until [ -s /run/pid ]; do sleep 0.05; done; cat /run/pid');
    expect(pid).toMatch(/^\d+$/);
    expect(detached).toMatchObject({ code: 0, stdout: `${pid}\n` });
    expect((await runRoost(home, ['top', 'one'])).stdout).toMatch(new RegExp(`^ *${pid} `, 'm'));
    await daemon.kill9();
    const next = await home.start();
    await agentUp(next, 'one');
    expect(await shellIn(at, 'one')(`tr '\\0' ' ' </proc/${pid}/cmdline`)).toBe('sleep 1000');
    expect(
      await shellIn(at, 'one')(`kill ${pid}; while kill -0 ${pid} 2>/dev/null; do sleep 0.05; done`),
    ).toBe('');
    // Who is cut off hangs up: a program with a terminal ends, the agent goes on.
    const cut = await runRoost(
      home,
      ['exec', '-t', 'one', 'sh', '-c', 'echo $$ >/run/pid; echo ready; sleep 1000'],
      { interruptAt: 'ready' },
    );
    expect(cut.code).toBe(130);
    await shellIn(at, 'one')('while kill -0 $(cat /run/pid) 2>/dev/null; do sleep 0.05; done');
    await leaveNothing({ home, daemon: next });
  });

  it('files are copied both ways with their modes, and belong to nobody else', async () => {
    const at = await beginWithBusybox();
    const { home } = at;
    await startContainer(at, 'one');
    const directory = await testDirectory('copies');
    const [there, back] = [join(directory, 'there'), join(directory, 'back')];
    const bytes = randomBytes(3 * 1024 * 1024 + 1);
    await writeFile(there, bytes);
    await chmod(there, 0o751);
    expect(await runRoost(home, ['cp', there, 'one:/root/copy'])).toMatchObject({ code: 0 });
    const shell = shellIn(at, 'one');
    expect(await shell('stat -c "%a %u %g %s" /root/copy')).toBe(`751 0 0 ${bytes.length}`);
    await shell('chmod 640 /root/copy');
    expect(await runRoost(home, ['cp', 'one:/root/copy', back])).toMatchObject({ code: 0 });
    expect((await readFile(back)).equals(bytes)).toBe(true);
    expect((await stat(back)).mode & 0o777).toBe(0o640);
    // A link is followed by the container, and never by the host.
    await writeFile(join(directory, 'secret'), 'of the host');
    await shell(`ln -s ${join(directory, 'secret')} /root/link`);
    const followed = await runRoost(home, ['cp', 'one:/root/link', join(directory, 'stolen')]);
    expect(followed.code).toBeGreaterThan(0);
    expect(await runRoost(home, ['cp', 'one:/no/such', back])).toMatchObject({
      code: expect.toSatisfy((code: number) => code > 0),
    });
    await leaveNothing(at);
  });

  it('its processes, addresses and console size are told as they are in it', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
    await startContainer(at, 'one', { nics: [{ network: 'lan' }] });
    await runRoost(home, ['exec', '-d', 'one', 'sleep', '4321']);
    const { stdout: top } = await runRoost(home, ['top', 'one']);
    expect(top).toMatch(/^1 +0 +0 +S .*\/sbin\/init$/m);
    expect(top).toMatch(/sleep 4321$/m);
    // Whatever its number is, the second process of a container is no thread of a kernel's.
    const numbers = (await shellIn(at, 'one')('cd /proc; echo [0-9]*')).split(' ').map(Number);
    for (const pid of numbers.filter((number) => number <= 4))
      expect(top).toMatch(new RegExp(`^${pid} `, 'm'));
    expect(top).not.toMatch(/node|roostd|lxc-start/);
    const [nic] = (await daemon.guest('one')).nics;
    const told = await daemon.client.call('guest-network-get-interfaces', { guest: 'one' });
    expect(told.interfaces.map(({ name }) => name).toSorted()).toEqual(['eth0', 'lo']);
    expect(told.interfaces).toContainEqual({
      name: 'eth0',
      hardwareAddress: nic?.mac,
      ipAddresses: expect.arrayContaining([{ ipAddress: nic?.ipv4, ipAddressType: 'ipv4', prefix: 24 }]),
    });
    expect((await runRoost(home, ['addresses', 'one'])).stdout).toContain(nic?.ipv4);
    await leaveNothing(at);
  });

  it('the agent comes back when it is killed, and is not there where it is not wanted', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'one');
    const { id } = await daemon.guest('one');
    const events = await watchEvents(at);
    expect(await execIn(at, 'one')('sh', '-c', 'kill -9 $PPID')).toMatchObject({ code: 1, stdout: '' });
    for (const state of ['absent', 'connected'])
      await events.waitForEvent(
        ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['state'] === state,
      );
    expect(await initPidOf(home, id)).toBeGreaterThan(0);
    expect(await execIn(at, 'one')('true')).toMatchObject({ code: 0 });

    await daemon.succeed('guest-create', {
      ...container('mute', { agent: { enabled: false }, init: initOf() }),
      start: true,
    });
    expect((await execIn(at, 'mute')('true')).code).toBeGreaterThan(0);
    const processes = (await daemon.client.call('query-guest-log', { guest: 'mute', stream: 'process' }))
      .text;
    expect(processes).not.toContain('agent');
    await leaveNothing(at);
  });
});

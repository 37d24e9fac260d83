/** Container images as guests: booted, used, ended with their program, taken over, and gone without a trace. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CommandInput } from '../../protocol/commands.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { beginWithBox } from '../harness/box-guests.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { provideMicrovmImages } from '../harness/microvm-images.ts';
import { describeWith } from '../harness/needs.ts';
import type { DaemonHome, RealDaemon } from '../harness/real-daemon.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { Terminal } from '../harness/terminal.ts';
import { TestClient } from '../harness/test-client.ts';

const images = provideMicrovmImages();

type Program = NonNullable<CommandInput<'guest-create'>['program']>;

const begin = () => beginWithBox(images);

const script = (text: string): Pick<Program, 'command'> => ({ command: ['sh', '-c', text] });

const running = async (
  daemon: RealDaemon,
  name: string,
  program: Omit<Program, 'image'>,
  more: Partial<CommandInput<'guest-create'>> = {},
): Promise<void> => {
  await daemon.succeed('guest-create', {
    name,
    machine: 'microvm',
    memoryBytes: 128 * MEBIBYTE,
    program: { image: 'box', ...program },
    qemu: { accel: 'tcg' },
    start: true,
    ...more,
  });
};

const ended = async (daemon: RealDaemon, name: string): ReturnType<RealDaemon['guest']> =>
  await daemon.guestWhen(name, ({ state }) => state === 'stopped');

/** Resolves once the program has written that. */
const heard = async (home: DaemonHome, guest: string, text: string): Promise<void> => {
  while (!(await runRoost(home, ['logs', guest])).stdout.includes(text));
};

/** Resolves once nobody knows the guest any more. */
const gone = async (daemon: RealDaemon, guest: string): Promise<void> => {
  while ((await daemon.client.call('query-guests', { nameGlob: guest })).total > 0);
};

/** A command line of `roost` in a terminal, and the exit code behind it. */
const terminalOf = (home: DaemonHome, args: readonly string[], before = 'true'): Terminal =>
  new Terminal(
    `${before}; ROOST_SOCKET="${join(home.runDirectory, 'roost.sock')}" "${process.execPath}" "${roostProgram}" ${args.join(' ')}; echo "code $?"`,
  );

describeWith(
  ['root', 'qemu', 'qemu-img', 'sqfstar', 'nft', 'ip', 'dnsmasq', 'tun'],
  'a container image as a guest',
  () => {
    test.each(['microvm', 'q35'])(
      'on %s runs its program, is used from outside, and ends with it',
      async (machine) => {
        const { home, daemon } = await begin();
        const exec = (...argv: string[]) => runRoost(home, ['exec', 'web', ...argv]);
        await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
        const told =
          'echo "$PWD $COLOUR $SIZE $HOSTNAME"; hostname; until [ -e /tmp/stop ]; do sleep 0.1; done; exit 7';
        const program = { ...script(told), environment: ['SIZE=3'] };
        await running(daemon, 'web', program, { machine, nics: [{ network: 'lan' }] });
        const view = await daemon.guest('web');
        expect(view).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
        expect(view.program).toMatchObject({ workingDirectory: '/srv', stopSignal: 'SIGTERM' });
        expect(JSON.stringify(view)).not.toContain('SIZE=3');
        expect(await exec('sh', '-c', 'echo out; echo err >&2; id -u; exit 3')).toEqual({
          code: 3,
          stdout: 'out\n0\n',
          stderr: 'err\n',
        });
        const ipv4 = view.nics[0]?.ipv4 ?? '';
        expect((await exec('ip', '-4', 'addr')).stdout).toContain(`inet ${ipv4}/24`);
        const gateway = ipv4.replace(/\d+$/, '1');
        expect((await exec('ping', '-c', '1', '-W', '5', gateway)).stdout).toContain('1 packets received');
        expect((await exec('cat', '/etc/resolv.conf')).stdout).toContain('search lan');
        await expect(daemon.succeed('guest-disk-detach', { guest: 'web', disk: 'upper' })).rejects.toThrow(
          'Disk upper holds the program',
        );
        await exec('touch', '/tmp/stop');
        expect((await ended(daemon, 'web')).lastExit).toMatchObject({ cause: 'guest-shutdown', exitCode: 7 });
        expect((await runRoost(home, ['logs', 'web'])).stdout).toBe('/srv red 3 web\nweb\n');
        await leaveNothing({ home, daemon });
      },
    );

    test('is signalled, and tells its processes; with --rm the daemon deletes it', async () => {
      const { home, daemon } = await begin();
      await daemon.succeed('network-create', { name: 'out', kind: 'user' });
      const command = 'trap "echo hup" HUP; while :; do sleep 0.1; done';
      const args = [
        'run',
        '-d',
        '--rm',
        '--network',
        'out',
        '-p',
        '80',
        '--name',
        'web',
        'box',
        'sh',
        '-c',
        command,
      ];
      expect((await runRoost(home, args)).stdout).toBe('web\n');
      const [nic] = (await daemon.guest('web')).nics;
      expect(nic?.forwards).toMatchObject([{ guestPort: 80, hostPort: expect.any(Number) }]);
      expect(await runRoost(home, ['kill', '-s', 'hup', 'web'])).toMatchObject({ code: 0, stdout: 'web\n' });
      await heard(home, 'web', 'hup\n');
      const top = await runRoost(home, ['top', 'web']);
      expect(top.stdout).toContain('trap "echo hup" HUP');
      expect(top.stdout.split('\n')[1]).toMatch(/^1 +0 +0 +[RS] /);
      expect(await runRoost(home, ['kill', '-s', 'NONE', 'web'])).toMatchObject({ code: 2 });
      expect(await runRoost(home, ['kill', 'web'])).toMatchObject({ code: 0 });
      await gone(daemon, 'web');
      expect(await runRoost(home, ['kill', 'web'])).toMatchObject({ code: 3 });
      await leaveNothing({ home, daemon });
    });

    test('asked to stop gets the signal of its image, and is killed when it does not heed it', async () => {
      const { home, daemon } = await begin();
      await running(daemon, 'heeds', script('trap "echo bye; exit 5" TERM; while :; do sleep 0.1; done'));
      await running(daemon, 'deaf', script('trap "" TERM; while :; do sleep 0.1; done'), {
        stopTimeoutMs: 1_000,
      });
      await daemon.succeed('guest-stop', { guest: 'heeds' });
      expect((await daemon.guest('heeds')).lastExit).toMatchObject({ exitCode: 5 });
      expect((await runRoost(home, ['logs', 'heeds'])).stdout).toBe('bye\n');
      await daemon.succeed('guest-stop', { guest: 'deaf' });
      expect((await daemon.guest('deaf')).lastExit).toMatchObject({ cause: 'asked' });
      await leaveNothing({ home, daemon });
    });

    test('outlives the daemon: its output goes on, and its end is told by the next one', async () => {
      const { home, daemon } = await begin();
      const count =
        'n=0; until [ -e /tmp/stop ]; do n=$((n+1)); echo $n; touch /tmp/$n; sleep 0.1; done; exit 9';
      await running(daemon, 'talks', script(count));
      const until = (name: string) =>
        runRoost(home, ['exec', 'talks', 'sh', '-c', `until [ -e /tmp/${name} ]; do sleep 0.1; done`]);
      expect(await until('3')).toMatchObject({ code: 0 });
      const { process } = await daemon.guest('talks');
      await daemon.kill9();
      const next = await home.start();
      expect(await next.guest('talks')).toMatchObject({ state: 'running', process: { pid: process?.pid } });
      expect(await until('20')).toMatchObject({ code: 0 });
      await runRoost(home, ['exec', 'talks', 'touch', '/tmp/stop']);
      expect((await ended(next, 'talks')).lastExit).toMatchObject({ exitCode: 9 });
      const lines = (await runRoost(home, ['logs', 'talks'])).stdout.trim().split('\n').map(Number);
      // Nothing of it twice; what was on the way to the daemon that was killed may be missing.
      expect(lines).toEqual([...new Set(lines)].toSorted((a, b) => a - b));
      expect(lines).toEqual(expect.arrayContaining([1, 2, 15, 16, 17, 18, 19, 20]));
      await leaveNothing({ home, daemon: next });
    });

    test('fails to start where its program is not there, says so, and leaves nothing', async () => {
      const { home, daemon } = await begin();
      await expect(running(daemon, 'none', { command: ['/no/such'] })).rejects.toThrow(
        /The program \/no\/such cannot be run/,
      );
      expect(await daemon.guest('none')).toMatchObject({ state: 'failed' });
      await leaveNothing({ home, daemon });
    });

    test('that stands still while it boots is booted again', { timeout: 300_000 }, async () => {
      const { home, daemon } = await begin();
      await using watcher = await TestClient.connect(join(home.runDirectory, 'roost.sock'));
      const created = running(daemon, 'hangs', script('sleep 1000'));
      // Not earlier: while its monitor is asked something a start waits for it, however long.
      await watcher.waitForEvent(({ data }) => data['step'] === 'program');
      const first = await daemon.guest('hangs');
      process.kill(first.process?.pid ?? 0, 'SIGSTOP');
      await created;
      const second = await daemon.guest('hangs');
      expect(second).toMatchObject({ state: 'running', ready: { kind: 'agent' } });
      expect(second.process?.pid).not.toBe(first.process?.pid);
      await leaveNothing({ home, daemon });
    });

    test('is started again by its policy when its program fails, and not when it ends well', async () => {
      const { home, daemon } = await begin();
      const restartPolicy = { when: 'on-failure', delayMs: 1 } as const;
      const count = 'n=$(cat /n 2>/dev/null); echo $((n+1)) > /n; [ "$n" = 1 ] && exit 0; exit 1';
      await running(daemon, 'tries', script(count), { restartPolicy });
      const last = await daemon.guestWhen(
        'tries',
        ({ state, target }) => state === 'stopped' && target === 'stopped',
      );
      expect(last).toMatchObject({ lastExit: { exitCode: 0 }, restarts: { count: 1 } });
      await leaveNothing({ home, daemon });
    });

    test('takes files and gives them, by name from its neighbour', async () => {
      const { home, daemon } = await begin();
      await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
      const nics = [{ network: 'lan' }];
      await running(
        daemon,
        'one',
        script('mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www'),
        { nics },
      );
      await running(daemon, 'two', script('sleep 1000'), { nics });
      const got = await runRoost(home, ['exec', 'two', 'sh', '-c', 'wget -q -O - http://one/index.html']);
      expect(got).toEqual({ code: 0, stdout: 'hello\n', stderr: '' });
      const file = join(home.stateDirectory, '..', 'file');
      await writeFile(file, randomBytes(300_000));
      expect(await runRoost(home, ['cp', file, 'one:/www/file'])).toMatchObject({ code: 0 });
      expect(await runRoost(home, ['cp', 'one:/www/file', `${file}.back`])).toMatchObject({ code: 0 });
      expect((await readFile(`${file}.back`)).equals(await readFile(file))).toBe(true);
      await leaveNothing({ home, daemon });
    });

    test('gives a program in it streams that last, and a terminal', async () => {
      const { home, daemon } = await begin();
      await running(daemon, 'shell', script('sleep 1000'));
      const exec = (...words: string[]) => runRoost(home, ['exec', '-i', 'shell', ...words]);
      // More than the QEMU guest agent takes at all.
      const text = 'a line of text\n'.repeat(50_000);
      const copied = await runRoost(home, ['exec', '-i', 'shell', 'cat'], { stdin: text });
      expect({ ...copied, stdout: copied.stdout === text }).toEqual({ code: 0, stdout: true, stderr: '' });
      expect(
        await runRoost(home, ['exec', '-w', '/tmp', 'shell', 'sh', '-c', 'pwd; echo err >&2; exit 3']),
      ).toEqual({
        code: 3,
        stdout: '/tmp\n',
        stderr: 'err\n',
      });
      expect(await exec('/no/such')).toMatchObject({
        code: expect.toSatisfy((code: number) => code > 0),
        stderr: expect.stringContaining('The program /no/such cannot be run'),
      });
      expect((await exec('sh', '-c', 'kill -15 $$')).code).toBe(143);
      const terminal = terminalOf(home, ['exec', '-it', 'shell', 'sh'], 'stty rows 31 cols 77');
      await terminal.seen('# ');
      terminal.type('stty size\r');
      await terminal.seen('31 77');
      terminal.type('exit 4\r');
      await terminal.ended();
      expect(terminal.output).toMatch(/code 4\r\n/);
      // Who is cut off hangs up.
      const cut = await runRoost(
        home,
        ['exec', '-t', 'shell', 'sh', '-c', 'echo $$ > /tmp/pid; echo ready; sleep 1000'],
        {
          interruptAt: 'ready',
        },
      );
      expect(cut.code).toBe(130);
      expect(
        await exec('sh', '-c', 'while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.1; done'),
      ).toMatchObject({
        code: 0,
      });
      await leaveNothing({ home, daemon });
    });

    test('is run on a terminal, left, and come back to by others and after a restart of the daemon', async () => {
      const { home, daemon } = await begin();
      const terminal = terminalOf(home, ['run', '-it', '--name', 'inter', 'box', 'sh']);
      await terminal.seen('# ');
      terminal.type('echo a$((1+1))b\r');
      await terminal.seen('a2b');
      terminal.type('\u001d');
      await terminal.ended();
      expect(terminal.output).toMatch(/Left inter[^]*code 0\r\n/);
      expect(await daemon.guest('inter')).toMatchObject({
        state: 'running',
        program: { terminal: true, interactive: true },
      });
      await daemon.kill9();
      const next = await home.start();
      const again = terminalOf(home, ['attach', 'inter']);
      await again.seen('Attached to inter');
      again.type('echo c$((2+2))d; exit 5\r');
      await again.seen('c4d');
      await again.ended();
      expect(again.output).toMatch(/code 5\r\n/);
      expect((await ended(next, 'inter')).lastExit).toMatchObject({ exitCode: 5 });
      expect((await runRoost(home, ['logs', 'inter'])).stdout).toMatch(/a2b[^]*c4d/);
      expect(await runRoost(home, ['run', '--rm', '-i', 'box', 'cat'], { stdin: 'over\n' })).toEqual({
        code: 0,
        stdout: 'over\n',
        stderr: '',
      });
      expect(await runRoost(home, ['attach', 'inter'])).toMatchObject({
        code: expect.toSatisfy((code: number) => code > 0),
      });
      await leaveNothing({ home, daemon: next });
    });

    test('is run by one command, from its image to its exit code, and deleted', async () => {
      const { home, daemon } = await begin();
      const run = (...words: string[]) => runRoost(home, ['run', '--rm', ...words]);
      expect(await run('-e', 'SIZE=4', 'box', 'sh', '-c', 'echo "$SIZE $PWD"; exit 6')).toEqual({
        code: 6,
        stdout: '4 /srv\n',
        stderr: '',
      });
      expect(await run('box')).toMatchObject({ code: 0, stdout: 'no command\n' });
      expect(await run('box', 'no-such-program')).toMatchObject({ code: 127, stdout: '' });
      expect(await run('box', 'sh', '-c', 'kill -9 $$')).toMatchObject({ code: 137 });
      for (const refused of [
        ['--network', 'none-of-these', 'box'],
        ['-p', 'nonsense', 'box'],
      ])
        expect(await run(...refused, 'true')).toMatchObject({ code: 125, stdout: '' });
      expect((await daemon.client.call('query-guests', {})).guests).toEqual([]);
      expect(await runRoost(home, ['run', '-d', '--name', 'stays', 'box', 'sleep', '1000'])).toEqual({
        code: 0,
        stdout: 'stays\n',
        stderr: '',
      });
      expect(await daemon.guest('stays')).toMatchObject({ state: 'running' });
      await leaveNothing({ home, daemon });
    });
  },
);

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { chmod, copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { launcherPath, lockFile } from '../../native/index.ts';

const isRoot = process.getuid?.() === 0;
const uid = 2_000_000_001;
const identity = ['--uid', `${uid}`, '--gid', `${uid}`, '--groups', '7,2000000002'];

let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'roost-launcher-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface RunOptions {
  /** Passed as descriptors 3, 4, … */
  readonly descriptors?: readonly number[];
  readonly uid?: number;
  readonly gid?: number;
  readonly cwd?: string;
}

async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { descriptors = [], ...rest } = options;
  const child = spawn(program, args, { ...rest, stdio: ['ignore', 'pipe', 'pipe', ...descriptors] });
  if (child.stdout === null || child.stderr === null) throw new Error('the child has no output');
  const [[exitCode], stdout, stderr] = await Promise.all([
    once(child, 'close') as Promise<[number | null]>,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { exitCode, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() };
}

async function launch(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return run(launcherPath(), args, options);
}

/** Launches `cat` on its own status; returns the lines of proc(5)'s status by name. */
async function statusAfter(args: readonly string[]): Promise<Map<string, string>> {
  const { exitCode, stdout, stderr } = await launch([...args, '--', '/bin/cat', '/proc/self/status']);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  return fieldsOf(stdout);
}

function fieldsOf(status: string): Map<string, string> {
  return new Map(
    status.split('\n').map((line) => {
      const colon = line.indexOf(':');
      return [
        line.slice(0, colon),
        line
          .slice(colon + 1)
          .trim()
          .replaceAll('\t', ' '),
      ];
    }),
  );
}

const noCapabilities = '0'.repeat(16);

describe.skipIf(!isRoot)('as root', () => {
  it('becomes the uid, the gid and exactly the groups, without any capability', async () => {
    const status = await statusAfter(identity);
    expect(status.get('Uid')).toBe(`${uid} ${uid} ${uid} ${uid}`);
    expect(status.get('Gid')).toBe(`${uid} ${uid} ${uid} ${uid}`);
    expect(status.get('Groups')).toBe('7 2000000002');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
      expect([set, status.get(set)]).toEqual([set, noCapabilities]);
    }
    expect(status.get('NoNewPrivs')).toBe('1');
    expect(status.get('Umask')).toBe('0077');
  });

  it('takes no supplementary group when told so', async () => {
    const status = await statusAfter(['--uid', '5', '--gid', '6', '--groups', '']);
    expect(status.get('Uid')).toBe('5 5 5 5');
    expect(status.get('Gid')).toBe('6 6 6 6');
    expect(status.get('Groups')).toBe('');
  });

  it('drops inheritable and ambient capabilities that it was given', async () => {
    const given = ['--inh-caps', '+net_raw', '--ambient-caps', '+net_raw'];
    const show = ['/bin/cat', '/proc/self/status'];
    const before = fieldsOf((await run('setpriv', [...given, ...show])).stdout);
    expect(before.get('CapAmb')).toBe('0000000000002000');
    const launched = await run('setpriv', [...given, launcherPath(), ...identity, '--', ...show]);
    const status = fieldsOf(launched.stdout);
    expect(status.get('CapInh')).toBe(noCapabilities);
    expect(status.get('CapAmb')).toBe(noCapabilities);
  });

  it('takes the capabilities even when it keeps the uid', async () => {
    const status = await statusAfter([]);
    expect(status.get('Uid')).toBe('0 0 0 0');
    expect(status.get('CapBnd')).toBe(noCapabilities);
    expect(status.get('CapEff')).toBe(noCapabilities);
    expect(status.get('NoNewPrivs')).toBe('1');
  });

  it('says what the new identity may not execute', async () => {
    const program = join(folder, 'program');
    writeFileSync(program, '#!/bin/sh\n', { mode: 0o700 });
    expect(await launch([...identity, '--', program])).toMatchObject({
      exitCode: 126,
      stderr: `roost-launcher: ${program}: Permission denied`,
    });
  });
});

describe('without privileges', () => {
  const asNobody: RunOptions = isRoot ? { uid: 65534, gid: 65534, cwd: '/' } : {};
  let launcher = '';

  /** Where the other user can reach it. */
  beforeEach(async () => {
    launcher = join(folder, 'roost-launcher');
    await copyFile(launcherPath(), launcher);
    await chmod(launcher, 0o755);
    await chmod(folder, 0o755);
  });

  it('keeps its identity and still gives up new privileges', async () => {
    const { stdout } = await run(launcher, ['--', '/bin/cat', '/proc/self/status'], asNobody);
    const status = fieldsOf(stdout);
    const own = isRoot ? 65534 : process.getuid?.();
    expect(status.get('Uid')).toBe(`${own} ${own} ${own} ${own}`);
    expect(status.get('NoNewPrivs')).toBe('1');
    expect(status.get('CapEff')).toBe(noCapabilities);
  });

  it('refuses to pretend: another identity fails', async () => {
    const { exitCode, stderr } = await run(launcher, [...identity, '--', '/bin/true'], asNobody);
    expect(exitCode).toBe(125);
    expect(stderr).toMatch(/^roost-launcher: .*: Operation not permitted$/);
  });
});

describe('the process', () => {
  it('gets the umask, the OOM score and the limits', async () => {
    const status = await statusAfter(['--umask', '027']);
    expect(status.get('Umask')).toBe('0027');

    const score = await launch(['--oom-score-adj', '500', '--', '/bin/cat', '/proc/self/oom_score_adj']);
    expect(score.stdout).toBe('500');

    const limits = [
      'nofile=100:200',
      'core=0:0',
      'memlock=4096:8192',
      'fsize=1048576:unlimited',
      'nproc=300:400',
      'as=1073741824:2147483648',
    ];
    const { stdout } = await launch([
      ...limits.flatMap((limit) => ['--rlimit', limit]),
      '--',
      '/bin/cat',
      '/proc/self/limits',
    ]);
    expect(stdout).toMatch(/^Max open files +100 +200 /m);
    expect(stdout).toMatch(/^Max core file size +0 +0 /m);
    expect(stdout).toMatch(/^Max locked memory +4096 +8192 /m);
    expect(stdout).toMatch(/^Max file size +1048576 +unlimited /m);
    expect(stdout).toMatch(/^Max processes +300 +400 /m);
    expect(stdout).toMatch(/^Max address space +1073741824 +2147483648 /m);
  });

  it('has the descriptors below --keep-fds and none from there on', async () => {
    const file = openSync('/dev/zero', 'r');
    const open = (args: readonly string[]): Promise<Outcome> =>
      launch([...args, '--', '/bin/readlink', ...[3, 4, 5, 6].map((fd) => `/proc/self/fd/${fd}`)], {
        descriptors: [file, file, file, file],
      });
    expect((await open([])).stdout.split('\n')).toEqual(Array(4).fill('/dev/zero'));
    expect((await open(['--keep-fds', '5'])).stdout.split('\n')).toEqual(Array(2).fill('/dev/zero'));
    closeSync(file);
  });

  it('ignores and blocks no signal, whatever its parent did', async () => {
    const script = [
      'import os, signal, sys',
      'signal.signal(signal.SIGPIPE, signal.SIG_IGN)',
      'signal.signal(64, signal.SIG_IGN)',
      'signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])',
      'os.execv(sys.argv[1], sys.argv[1:])',
    ].join('\n');
    const status = async (program: readonly string[]): Promise<Map<string, string>> =>
      fieldsOf((await run('python3', ['-c', script, ...program, '/bin/cat', '/proc/self/status'])).stdout);

    // libc keeps 32 and 33 for itself and lets nobody set them; under GNU make they come ignored.
    const masks = (fields: Map<string, string>): readonly string[] =>
      ['SigIgn', 'SigBlk'].map((name) => {
        const mask = BigInt(`0x${fields.get(name)}`) & ~0x1_8000_0000n;
        return mask.toString(16).padStart(16, '0');
      });

    // Python itself ignores SIGXFSZ (25) besides.
    expect(masks(await status([]))).toEqual(['8000000001001000', '0000000000014000']);
    expect(masks(await status([launcherPath(), '--']))).toEqual([noCapabilities, noCapabilities]);
  });

  it('passes its arguments on as they are', async () => {
    const args = ['--uid', '', 'two words', '$HOME'];
    const { stdout } = await launch(['--', '/usr/bin/printf', '%s|', ...args]);
    expect(stdout).toBe('--uid||two words|$HOME|');
  });
});

describe('--die-with', () => {
  /** A shell that launches a program which tells its pid, and that is ended by the end of its input. */
  const launchUnderShell = (options: string): ChildProcess =>
    spawn(
      '/bin/sh',
      ['-c', `"$0" ${options} -- /bin/sh -c 'echo $$; exec sleep 1000' & read x`, launcherPath()],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );

  it('ends the program with its parent, also after an identity was taken', async () => {
    for (const options of isRoot
      ? ['--die-with $$', `${identity.join(' ')} --die-with $$`]
      : ['--die-with $$']) {
      const shell = launchUnderShell(options);
      const { stdin, stdout } = shell;
      if (!stdin || !stdout) throw new Error('the shell has no pipes');
      await once(stdout, 'data');
      // The program holds the pipe: its end is the end of the program.
      const ended = Promise.all([once(shell, 'exit'), once(stdout, 'end')]);
      shell.kill('SIGKILL');
      const [[, signal]] = (await ended) as [[number | null, string | null], unknown];
      expect(signal).toBe('SIGKILL');
    }
  });

  it('launches nothing for a parent that is gone', async () => {
    expect(await launch(['--die-with', '1', '--', '/bin/echo', 'started'])).toEqual({
      exitCode: 125,
      stdout: '',
      stderr: 'roost-launcher: parent 1: No such process',
    });
  });
});

describe('--pid-fd', () => {
  async function firstOutput(child: ChildProcess): Promise<void> {
    if (child.stdout === null) throw new Error('the child has no output');
    await once(child.stdout, 'data');
  }

  /** Field 22 of proc(5)'s stat. */
  function startTicks(pid: number): string | undefined {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[22 - 3];
  }

  it('writes which process it is into the locked file, and keeps the lock', async () => {
    const path = join(folder, 'pid');
    writeFileSync(path, 'what an earlier and much longer lived process wrote\n'.repeat(10));
    const fd = lockFile(path);
    if (fd === 'held') throw new Error(`${path} is held`);
    const args = ['--pid-fd', '3', '--keep-fds', '4', ...(isRoot ? identity : [])];
    const child = spawn(launcherPath(), [...args, '--', '/bin/sh', '-c', 'echo up; read line'], {
      stdio: ['pipe', 'pipe', 'inherit', fd],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const exit = once(child, 'exit');
    await firstOutput(child);
    closeSync(fd);

    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    expect(readFileSync(path, 'utf8')).toBe(`${child.pid} ${startTicks(child.pid ?? 0)} ${bootId}\n`);
    expect(lockFile(path)).toBe('held');

    child.stdin?.end();
    await exit;
    const free = lockFile(path);
    expect(free).not.toBe('held');
    if (free !== 'held') closeSync(free);
  });

  it('fails when the descriptor is not one to write to', async () => {
    const file = openSync('/dev/null', 'r');
    const args = ['--pid-fd', '3', '--', '/bin/true'];
    expect(await launch(args, { descriptors: [file] })).toMatchObject({
      exitCode: 125,
      stderr: 'roost-launcher: ftruncate descriptor 3: Invalid argument',
    });
    closeSync(file);
    expect(await launch(['--pid-fd', '100', '--', '/bin/true'])).toMatchObject({
      exitCode: 125,
      stderr: 'roost-launcher: ftruncate descriptor 100: Bad file descriptor',
    });
  });
});

describe('what is wrong', () => {
  it.each([
    [[], "'--' and a program are missing"],
    [['/bin/true'], "unknown option '/bin/true'"],
    [['--'], 'no program is given'],
    [['--', 'true'], "'true' is not a path"],
    [['--nonsense', '1', '--', '/bin/true'], "unknown option '--nonsense'"],
    [['--uid=5', '--', '/bin/true'], "unknown option '--uid=5'"],
    [['--uid'], '--uid needs a value'],
    [['--uid', '5', '--', '/bin/true'], '--uid, --gid and --groups go together'],
    [['--uid', '5', '--gid', '5', '--', '/bin/true'], '--uid, --gid and --groups go together'],
    [['--groups', '', '--', '/bin/true'], '--uid, --gid and --groups go together'],
    [['--directory', '9:ro:/srv', '--', '/bin/true'], '--directory needs --virtiofsd and --directories-fd'],
    [['--directory', '9:ro:srv'], "--directory: '9:ro:srv' is not N:rw:PATH or N:ro:PATH"],
    [['--directory', '9:/srv'], "--directory: '9:/srv' is not N:rw:PATH"],
    [['--directory', '2:ro:/srv'], "--directory: '2:ro:/srv' is not N:rw:PATH"],
    [['--directory', '128:ro:/srv'], "--directory: '128:ro:/srv' is not N:rw:PATH"],
    [['--directories-fd', '128'], "--directories-fd: '128' is not a number from 3 to 127"],
    [['--virtiofsd', 'virtiofsd'], "--virtiofsd: 'virtiofsd' is not an absolute path"],
    [['--cgroup', ''], "--cgroup: '' is not an absolute path"],
    [
      ['--virtiofsd', '/v', '--directories-fd', '9', '--directory', '9:ro:/srv', '--', '/bin/true'],
      '--directory 9 is --directories-fd',
    ],
    [
      [
        '--virtiofsd',
        '/v',
        '--directories-fd',
        '8',
        '--directory',
        '9:ro:/srv',
        '--keep-fds',
        '9',
        '--',
        '/bin/true',
      ],
      '--directory 9 is closed by --keep-fds 9',
    ],
    [['--uid', '0'], "--uid: '0' is not a number from 1 to 4294967294"],
    [['--uid', '4294967295'], "--uid: '4294967295' is not a number"],
    [['--uid', '4294967301'], "--uid: '4294967301' is not a number"],
    [['--uid', '18446744073709551621'], "--uid: '18446744073709551621' is not a number"],
    [['--uid', '-1'], "--uid: '-1' is not a number"],
    [['--uid', '+5'], "--uid: '+5' is not a number"],
    [['--uid', ' 5'], "--uid: ' 5' is not a number"],
    [['--uid', '5x'], "--uid: '5x' is not a number"],
    [['--uid', ''], "--uid: '' is not a number"],
    [['--uid', '5', '--uid', '5'], '--uid is given twice'],
    [['--groups', '5,'], "--groups: '5,' is not a list"],
    [['--groups', ','], "--groups: ',' is not a list"],
    [['--groups', '5,0'], "--groups: '5,0' is not a list"],
    [['--groups', Array(65).fill('5').join(',')], '--groups: more than 64 groups'],
    [['--oom-score-adj', '1001'], "--oom-score-adj: '1001' is not a number"],
    [['--oom-score-adj', '--5'], "--oom-score-adj: '-5' is not a number"],
    [['--rlimit', 'nofile=5'], "--rlimit: 'nofile=5' is not NAME=SOFT:HARD"],
    [['--rlimit', 'stack=5:5'], "--rlimit: 'stack=5:5' is not NAME=SOFT:HARD"],
    [['--rlimit', 'nofile=5:5:5'], "--rlimit: 'nofile=5:5:5' is not NAME=SOFT:HARD"],
    [['--rlimit', 'nofile'], "--rlimit: 'nofile' is not NAME=SOFT:HARD"],
    [['--rlimit', 'core=1:1', '--rlimit', 'core=1:1'], '--rlimit: core is given twice'],
    [['--umask', '8'], "--umask: '8' is not an octal number"],
    [['--umask', '1000'], "--umask: '1000' is not an octal number"],
    [['--keep-fds', '2'], "--keep-fds: '2' is not a number"],
    [['--pid-fd', '2'], "--pid-fd: '2' is not a number"],
    [['--die-with', '0'], "--die-with: '0' is not a number"],
    [['--pid-fd', '4', '--keep-fds', '4', '--', '/bin/true'], '--pid-fd 4 is closed by --keep-fds 4'],
  ])('%j is refused with the usage', async (args, message) => {
    const { exitCode, stdout, stderr } = await launch(args);
    expect(stderr.slice(0, `roost-launcher: ${message}`.length)).toBe(`roost-launcher: ${message}`);
    expect(stderr).toContain('usage: roost-launcher');
    expect({ exitCode, stdout }).toEqual({ exitCode: 125, stdout: '' });
  });

  it.each([[['--rlimit', 'nofile=20:10'], 'setrlimit nofile: Invalid argument']])(
    '%j ends the launch before the program',
    async (args, message) => {
      expect(await launch([...args, '--', '/bin/echo', 'started'])).toEqual({
        exitCode: 125,
        stdout: '',
        stderr: `roost-launcher: ${message}`,
      });
    },
  );

  it('tells a program that is absent from one that cannot be executed', async () => {
    expect(await launch(['--', '/nowhere/program'])).toEqual({
      exitCode: 127,
      stdout: '',
      stderr: 'roost-launcher: /nowhere/program: No such file or directory',
    });
    expect(await launch(['--', '/etc/hostname/program'])).toMatchObject({ exitCode: 127 });
    expect(await launch(['--', '/etc'])).toMatchObject({ exitCode: 126 });
    const textFile = join(folder, 'text');
    writeFileSync(textFile, 'echo a shell ran this\n', { mode: 0o755 });
    expect(await launch(['--', textFile])).toEqual({
      exitCode: 126,
      stdout: '',
      stderr: `roost-launcher: ${textFile}: Exec format error`,
    });
  });
});

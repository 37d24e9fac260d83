/** The launcher's directories, served by a stand-in for virtiofsd that tells what it was given. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { launcherPath, lockFile } from '../../native/index.ts';

const isRoot = process.getuid?.() === 0;
const identity = ['--uid', '2000000001', '--gid', '2000000001', '--groups', ''];

/** Serves one connection, which it tells of itself, until that ends. */
const server = `#!${process.execPath}
const { readdirSync, readlinkSync, writeFileSync } = require('node:fs');
const write = () => { try { writeFileSync('/mnt/new', ''); return 'written'; } catch (error) { return error.code; } };
const isOpen = (fd) => { try { return readlinkSync('/proc/self/fd/' + fd); } catch { return ''; } };
const line = new (require('node:net').Server)((socket) => {
  const told = { argv: process.argv.slice(2), files: readdirSync('/mnt'), write: write(), lock: isOpen(4), cwd: process.cwd() };
  socket.end(JSON.stringify(told) + '\\n');
  socket.on('close', () => line.close());
});
line.listen({ fd: 3 });
`;

let folder = '';
let lock = 0;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'roost-directories-'));
  writeFileSync(join(folder, 'server'), server, { mode: 0o755 });
  const taken = lockFile(join(folder, 'lock'), { mode: 0o600 });
  if (taken === 'held') throw new Error('the lock of a new file is held');
  lock = taken;
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

interface Launched {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Lets go of the lock itself: it is theirs who serve. */
const launch = async (options: readonly string[], program: readonly string[]): Promise<Launched> => {
  const args = ['--virtiofsd', join(folder, 'server'), '--directories-fd', '3', ...options, '--', ...program];
  const child = spawn(launcherPath(), args, { stdio: ['ignore', 'pipe', 'pipe', lock] });
  closeSync(lock);
  if (!child.stdout || !child.stderr) throw new Error('the child has no output');
  const [[exitCode], stdout, stderr] = await Promise.all([
    once(child, 'close') as Promise<[number | null]>,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { exitCode, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() };
};

/** Waits for the lock. */
const nobodyServes = async (): Promise<void> => {
  await promisify(execFile)('flock', [join(folder, 'lock'), 'true']);
};

describe.skipIf(!isRoot)('--directory', () => {
  it('is served to the program alone, and read-only where it is to be', async () => {
    const [kept, source] = [join(folder, 'a,b:c'), join(folder, 'shared')];
    for (const directory of [kept, source]) {
      mkdirSync(directory);
      writeFileSync(join(directory, 'file'), '');
    }
    const both = ['--directory', `4:ro:${kept}`, '--directory', `5:rw:${source}`, '--keep-fds', '6'];
    const show = 'head -n 1 <&4; head -n 1 <&5; id -u; ls /proc/self/fd';
    const { exitCode, stdout, stderr } = await launch([...identity, ...both], ['/bin/sh', '-c', show]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    const [first = '', second = '', ...rest] = stdout.split('\n');
    const told = { files: ['file'], lock: join(folder, 'lock'), cwd: '/' };
    expect(JSON.parse(first)).toMatchObject({ ...told, write: 'EROFS' });
    expect(JSON.parse(second)).toMatchObject({ ...told, write: 'written' });
    expect(JSON.parse(first)).toMatchObject({
      argv: ['-f', '--fd=3', '-o', 'source=/mnt', '-o', expect.stringContaining('sandbox=namespace')],
    });
    // ls has a descriptor of its own; the lock is none of the program's.
    expect(rest).toEqual(['2000000001', '0', '1', '2', '3', '4', '5']);
    await nobodyServes();
    expect(readFileSync(join(folder, 'lock'), 'utf8')).toMatch(
      /^0 \d+ \d+ [0-9a-f-]{36}\n1 \d+ \d+ [0-9a-f-]{36}\n$/,
    );
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(folder);
  });

  it('is served no more when the program is killed', async () => {
    const options = ['--directory', `4:rw:${folder}`];
    expect(await launch([...identity, ...options], ['/bin/sh', '-c', 'kill -9 $$'])).toMatchObject({
      exitCode: null,
    });
    await nobodyServes();
  });

  it('is served no more when there is no such program', async () => {
    expect(await launch(['--directory', `4:rw:${folder}`], ['/no/such'])).toMatchObject({ exitCode: 127 });
    await nobodyServes();
  });

  it.each([
    ['missing', 'No such file or directory'],
    ['server', 'Not a directory'],
  ])('that is %s ends the launch, and so does the one before it', async (name, why) => {
    const path = join(folder, name);
    const options = ['--directory', `4:rw:${folder}`, '--directory', `5:ro:${path}`];
    expect(await launch(options, ['/bin/echo', 'started'])).toEqual({
      exitCode: 125,
      stdout: '',
      stderr: `roost-launcher: ${path}: ${why}`,
    });
    await nobodyServes();
  });
});

describe('--cgroup', () => {
  it('makes the process a member before anything else, and fails where there is no group', async () => {
    const file = openSync(join(folder, 'cgroup.procs'), 'w');
    onTestFinished(() => closeSync(file));
    const options = ['--cgroup', folder];
    expect(await launch(options, ['/bin/echo', 'started'])).toMatchObject({ exitCode: 0, stdout: 'started' });
    expect(readFileSync(join(folder, 'cgroup.procs'), 'utf8')).toBe('0');
    lock = openSync(join(folder, 'lock'), 'r+');
    const none = join(folder, 'none');
    expect(await launch(['--cgroup', none], ['/bin/echo', 'started'])).toEqual({
      exitCode: 125,
      stdout: '',
      stderr: `roost-launcher: open ${none}/cgroup.procs: No such file or directory`,
    });
  });
});

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { constants as osConstants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type ChildEnd, openPidfd, reap, spawnDetached, watchReadable } from '../../native/index.ts';

const { SIGTERM, SIGKILL } = osConstants.signals;

let folder = '';
let opened: number[] = [];

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'roost-spawn-')));
  opened = [];
});

afterEach(() => {
  for (const fd of opened) closeSync(fd);
  rmSync(folder, { recursive: true });
});

function open(path: string, flags = 'r'): number {
  const fd = openSync(path, flags);
  opened.push(fd);
  return fd;
}

function file(name: string): number {
  return open(join(folder, name), 'w+');
}

const contents = (name: string): string => readFileSync(join(folder, name), 'utf8');

interface Options {
  readonly program?: string;
  readonly env?: readonly string[];
  readonly cwd?: string;
  readonly descriptors?: readonly number[];
}

/** Runs a script in a shell whose standard output is the file `out`, unless it is given other descriptors. */
function spawnShell(script: string, options: Options = {}): Promise<number> {
  return spawnDetached({
    program: options.program ?? '/bin/sh',
    argv: ['sh', '-c', script],
    env: options.env ?? [],
    cwd: options.cwd ?? folder,
    descriptors: options.descriptors ?? [open('/dev/null'), file('out'), file('err')],
  });
}

async function ended(pid: number): Promise<void> {
  const pidfd = openPidfd(pid);
  await new Promise<void>((resolve) => void watchReadable(pidfd, resolve));
  closeSync(pidfd);
}

async function endOf(pid: number): Promise<ChildEnd | undefined> {
  await ended(pid);
  return reap(pid);
}

/** Runs until it is killed. */
function spawnWaiting(): Promise<number> {
  return spawnDetached({
    program: '/usr/bin/sleep',
    argv: ['sleep', 'infinity'],
    env: [],
    cwd: '/',
    descriptors: [],
  });
}

function statusField(pid: number | 'self', field: string): string | undefined {
  const line = readFileSync(`/proc/${pid}/status`, 'utf8')
    .split('\n')
    .find((each) => each.startsWith(`${field}:`));
  return line?.slice(field.length + 1).trim();
}

describe('spawnDetached', () => {
  it('runs a program in its directory, with its environment and nothing else', async () => {
    const pid = await spawnDetached({
      program: '/usr/bin/env',
      argv: ['another name', '-v', 'sh', '-c', 'pwd; echo "$A|$B|$HOME|$0|$1"', 'zero', 'a b\n"c"é'],
      env: ['A=1', 'B=two words', 'PATH=/usr/bin:/bin'],
      cwd: folder,
      descriptors: [open('/dev/null'), file('out'), file('err')],
    });
    expect(await endOf(pid)).toEqual({ code: 0, signal: null });
    expect(contents('out')).toBe(`${folder}\n1|two words||zero|a b\n"c"é\n`);
  });

  it('gives the child the descriptors in their order, and no others', async () => {
    const inherited = file('inherited');
    const [input, out, third] = [open('/dev/null'), file('out'), file('third')];
    const pid = await spawnShell('readlink /proc/self/fd/3; ls /proc/$$/fd; :', {
      descriptors: [input, out, out, third, inherited],
      env: ['PATH=/usr/bin:/bin'],
    });
    expect(await endOf(pid)).toEqual({ code: 0, signal: null });
    expect(contents('out')).toBe(`${join(folder, 'third')}\n0\n1\n2\n3\n4\n`);
  });

  it('keeps them apart where the numbers of both sides overlap', async () => {
    // This process's own 0 to 2, and as many above as it takes to have every number of the child's among them.
    const count = 24;
    const files = Array.from({ length: count }, (_, index) => file(`file-${index}`));
    const low = files.filter((fd) => fd < count);
    expect(low.length).toBeGreaterThan(1);
    const rotated = [...low.slice(1), ...low.slice(0, 1)];
    const wanted = [open('/dev/null'), file('out'), file('out-2'), ...rotated, ...low, ...files];
    const pid = await spawnShell(
      `i=0; while [ $i -lt ${wanted.length} ]; do readlink /proc/$$/fd/$i; i=$((i+1)); done`,
      {
        descriptors: wanted,
        env: ['PATH=/usr/bin:/bin'],
      },
    );
    const expected = wanted.map((fd) => realpathSync(`/proc/self/fd/${fd}`));
    expect(await endOf(pid)).toEqual({ code: 0, signal: null });
    expect(contents('out').trim().split('\n')).toEqual(expected);
  });

  it('passes a descriptor on under its own number', async () => {
    const pad = Array.from({ length: 40 }, () => open('/dev/null'));
    const same = file('same');
    const descriptors = [...pad, ...pad].slice(0, same).concat(same);
    expect(descriptors).toHaveLength(same + 1);
    expect(await endOf(await spawnShell(`echo hello > /proc/self/fd/${same}`, { descriptors }))).toEqual({
      code: 0,
      signal: null,
    });
    expect(contents('same')).toBe('hello\n');
  });

  it("leaves the caller's descriptors as they were, and opens none", async () => {
    const out = file('out');
    const before = readFileSync(`/proc/self/fdinfo/${out}`, 'utf8');
    const [lowest] = [open('/dev/null')];
    await endOf(await spawnShell(':', { descriptors: [0, out, out] }));
    expect(readFileSync(`/proc/self/fdinfo/${out}`, 'utf8')).toBe(before);
    const cloexec = 0o2000000;
    expect(Number.parseInt(/flags:\s*(\d+)/.exec(before)?.[1] ?? '', 8) & cloexec).toBe(cloexec);
    expect(fstatSync(out).isFile()).toBe(true);
    expect(open('/dev/null')).toBeGreaterThan(lowest ?? 0);
  });

  it('makes a session of its own', async () => {
    const pid = await spawnWaiting();
    // After the name: state, parent, group, session (proc(5)).
    const [, parent, group, session] = (readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] ?? '').split(
      ' ',
    );
    process.kill(pid, SIGKILL);
    await endOf(pid);
    expect([parent, group, session].map(Number)).toEqual([process.pid, pid, pid]);
  });

  it('ignores and blocks no signal, though this process does', async () => {
    // Node ignores SIGPIPE for itself.
    expect(BigInt(`0x${statusField('self', 'SigIgn')}`) & (1n << 12n)).not.toBe(0n);
    const pid = await spawnWaiting();
    const masks = ['SigBlk', 'SigIgn', 'SigCgt'].map((field) => statusField(pid, field));
    process.kill(pid, SIGKILL);
    await endOf(pid);
    expect(masks).toEqual(Array(3).fill('0000000000000000'));
  });

  it('says why a program cannot be run, and leaves no child', async () => {
    const failureOf = (options: Options): Promise<unknown> =>
      spawnShell(':', options).then(reap, (error: unknown) => error);
    expect(await failureOf({ program: join(folder, 'none') })).toMatchObject({
      code: 'ENOENT',
      syscall: 'posix_spawn',
      errno: -osConstants.errno.ENOENT,
      message: `ENOENT: No such file or directory, posix_spawn '${join(folder, 'none')}'`,
    });
    expect(await failureOf({ cwd: join(folder, 'none') })).toMatchObject({ code: 'ENOENT' });
    file('data');
    expect(await failureOf({ program: join(folder, 'data') })).toMatchObject({ code: 'EACCES' });
    expect(await failureOf({ descriptors: [-1] })).toMatchObject({ code: 'EBADF' });
    expect(await failureOf({ descriptors: [0, 1, 1_000_000] })).toMatchObject({ code: 'EBADF' });
    expect(childrenOfThis()).toEqual([]);
  });

  it('refuses arguments of another kind before it does anything', async () => {
    const request = { program: '/bin/true', argv: ['true'], env: [], cwd: '/', descriptors: [] };
    const refused = async (change: object): Promise<void> =>
      await expect(spawnDetached({ ...request, ...change })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARG_TYPE',
      });
    await refused({ program: 7 });
    await refused({ argv: 'true' });
    await refused({ argv: ['true', 7] });
    await refused({ argv: ['true', 'a\0b'] });
    await refused({ env: [undefined] });
    await refused({ cwd: undefined });
    await refused({ descriptors: [0.5] });
    expect(childrenOfThis()).toEqual([]);
  });
});

function childrenOfThis(): string[] {
  // Each thread has its own.
  return readdirSync('/proc/self/task').flatMap((thread) =>
    readFileSync(`/proc/self/task/${thread}/children`, 'utf8').trim().split(' ').filter(Boolean),
  );
}

describe('reap', () => {
  it('tells exit statuses and signals, once, and leaves no zombie', async () => {
    expect(await endOf(await spawnShell('exit 37'))).toEqual({ code: 37, signal: null });
    const pid = await spawnShell(`kill -${SIGTERM} $$`);
    await ended(pid);
    expect(statusField(pid, 'State')).toMatch(/^Z/);
    expect(reap(pid)).toEqual({ code: null, signal: SIGTERM });
    expect(() => statusField(pid, 'State')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => reap(pid)).toThrow(expect.objectContaining({ code: 'ECHILD', syscall: 'waitpid' }));
  });

  it('does not wait for a child that runs', async () => {
    const pid = await spawnWaiting();
    expect(reap(pid)).toBeUndefined();
    process.kill(pid, SIGKILL);
    expect(await endOf(pid)).toEqual({ code: null, signal: SIGKILL });
  });

  it("takes no child of Node's, and Node takes none of ours", async () => {
    const ours = await spawnShell('exit 5');
    await ended(ours);
    const theirs: ChildProcess = spawn('/bin/sh', ['-c', 'exit 6'], { stdio: 'ignore' });
    onTestFinished(() => void theirs.kill('SIGKILL'));
    // Node has handled a SIGCHLD meanwhile, with a dead child of ours beside its own.
    expect(await once(theirs, 'exit')).toEqual([6, null]);
    expect(reap(ours)).toEqual({ code: 5, signal: null });
    for (const pid of [0, -1, -ours])
      expect(() => reap(pid)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});

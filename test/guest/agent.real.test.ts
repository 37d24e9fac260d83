/** The init's agent through the host's own client: real programs, files and terminals, in namespaces of its own. */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentSession } from '../../drivers/roost-agent/agent-session.ts';
import { FieldWriter } from '../../drivers/roost-agent/fields.ts';
import { encodeFrame } from '../../drivers/roost-agent/frames.ts';
import { MicrovmAgent } from '../../drivers/roost-agent/microvm-agent.ts';
import { exec } from '../../lib/exec.ts';
import { describeWith } from '../harness/needs.ts';
import { NativeAgent, nextLine, run, textOf } from './native-agent.ts';

const isLong = process.env['ROOST_TORTURE'] === 'long';
const MEBIBYTE = 1024 * 1024;
const never = new AbortController().signal;

/** Numbers from 1 on, one a line, to about this many bytes: whatever is lost, doubled or out of order shows. */
const countTo = (bytes: number): number => Math.floor(bytes / (bytes > 512 * MEBIBYTE ? 9.8 : 8.6));

let native: NativeAgent;
let agent: MicrovmAgent;

describeWith(['root'], 'the agent of microVMs', () => {
  beforeAll(async () => {
    native = await NativeAgent.start();
    agent = await native.connect();
  }, 120_000);
  afterAll(async () => {
    await native[Symbol.asyncDispose]();
  }, 60_000);

  describe('programs', () => {
    it('have standard input, output and error of their own, and an exit code', async () => {
      const script = 'echo out; echo err >&2; cat; exit 7';
      expect(await run(agent, ['sh', '-c', script], { input: 'in' })).toEqual({
        stdout: 'out\nin',
        stderr: 'err\n',
        exitCode: 7,
        signal: undefined,
      });
    });

    it('run side by side', async () => {
      const words = Array.from({ length: 20 }, (_, index) => `word ${index}`);
      const results = await Promise.all(words.map((word) => run(agent, ['cat'], { input: word })));
      expect(results.map(({ stdout }) => stdout)).toEqual(words);
    });

    it('end by signals, alone or with all that they have started', async () => {
      const program = await agent.exec({ process: 1001, argv: ['sleep', '1000'] }, never);
      await program.kill(15, never);
      expect(await program.wait(never)).toMatchObject({ exitCode: undefined, signal: 15 });
      await program.release(never);
      const argv = ['sh', '-c', 'sleep 1000 & echo started; wait'] as const;
      const parent = await agent.exec({ process: 1002, argv, stdout: true }, never);
      await nextLine(parent.stdout);
      await parent.kill(9, never, { all: true });
      // The end of the output is that of the last that has it open.
      await textOf(parent.stdout);
      expect(await parent.wait(never)).toMatchObject({ signal: 9 });
      await parent.release(never);
    });

    it.each([
      ['web', 'uid=101(web) gid=102(web) groups=102(web),200(logs),201(media)', '/srv/web'],
      ['101', 'uid=101(web) gid=102(web) groups=102(web),200(logs),201(media)', '/srv/web'],
      ['web:logs', 'uid=101(web) gid=200(logs) groups=200(logs)', '/srv/web'],
      ['4711', 'uid=4711 gid=0(root) groups=0(root)', '/'],
      ['4711:4712', 'uid=4711 gid=4712 groups=4712', '/'],
      ['', 'uid=0(root) gid=0(root) groups=0(root)', '/root'],
    ])('run as the user %j', async (user, id, home) => {
      const { stdout } = await run(agent, ['sh', '-c', 'id; echo $HOME'], { user });
      expect(stdout).toBe(`${id}\n${home}\n`);
    });

    it('get environment, directory, groups, umask, limits and priority for the out-of-memory killer', async () => {
      const script =
        'echo "$A|$HOME"; pwd; umask; ulimit -n; ulimit -Hn; id -G; cat /proc/self/oom_score_adj';
      const { stdout } = await run(agent, ['sh', '-c', script], {
        environment: ['A=b c', 'HOME=/h', 'PATH=/bin:/usr/bin'],
        directory: '/tmp',
        groups: [7, 8],
        umask: 0o27,
        limits: [{ resource: 7, soft: 64n, hard: 128n }],
        oomScoreAdj: 500,
      });
      expect(stdout.split('\n')).toEqual(['b c|/h', '/tmp', '0027', '64', '128', '0 7 8', '500', '']);
    });

    it('keep the capabilities they are given, and no others', async () => {
      const argv = ['grep', '-E', '^(Cap|NoNewPrivs)', '/proc/self/status'] as const;
      const all = await run(agent, argv);
      expect(all.stdout).toMatch(/NoNewPrivs:\t0/);
      const kill = 1n << 5n;
      const limited = await run(agent, argv, { capabilities: kill, noNewPrivileges: true });
      expect(limited.stdout).toBe(
        'CapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n' +
          'CapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n',
      );
      const other = await run(agent, argv, { capabilities: kill, user: 'web' });
      expect(other.stdout).toMatch(/CapPrm:\t0{16}\nCapEff:\t0{16}\nCapBnd:\t0{14}20/);
      const ambient = await run(agent, argv, {
        capabilities: kill,
        ambientCapabilities: kill,
        user: 'web',
      });
      expect(ambient.stdout).toMatch(/CapEff:\t0{14}20\nCapBnd:\t0{14}20\nCapAmb:\t0{14}20/);
    });

    it.each([
      [['no-such-program'], 'ENOENT'],
      [['/etc/passwd'], 'EACCES'],
      [['/nowhere/at/all'], 'ENOENT'],
    ] as const)('that cannot be executed say why: %j', async (argv, errno) => {
      await expect(run(agent, argv)).rejects.toMatchObject({ data: { errno, request: 'exec' } });
    });

    it('are refused in words when a user or directory is missing, or the request makes no sense', async () => {
      await expect(run(agent, ['true'], { user: 'nobody-here' })).rejects.toMatchObject({
        class: 'NotFound',
      });
      await expect(run(agent, ['true'], { user: 'web:nogroup' })).rejects.toMatchObject({
        class: 'NotFound',
      });
      await expect(run(agent, ['true'], { directory: '/nowhere' })).rejects.toMatchObject({
        message: expect.stringContaining('chdir /nowhere') as string,
      });
      await expect(run(agent, ['true'], { cgroup: ['../evil=1'] })).rejects.toThrow(
        'no limit of a control group',
      );
      await expect(run(agent, ['true'], { environment: ['A=\0'] })).rejects.toThrow('NUL byte');
      await expect(run(agent, ['true'], { process: 0 })).rejects.toThrow('without a number');
    });

    it('have one number each until they are released', async () => {
      const first = await agent.exec({ process: 1003, argv: ['sleep', '1000'] }, never);
      await expect(agent.exec({ process: 1003, argv: ['true'] }, never)).rejects.toMatchObject({
        class: 'AlreadyExists',
      });
      await expect(first.release(never)).rejects.toMatchObject({ class: 'Unavailable' });
      expect(await agent.processes(never)).toEqual([
        { process: 1003, pid: expect.any(Number) as number, terminal: false, end: undefined },
      ]);
      await first.kill(9, never);
      await first.wait(never);
      expect((await agent.processes(never))[0]?.end).toMatchObject({ signal: 9 });
      await first.release(never);
      expect(await agent.processes(never)).toEqual([]);
    });

    it('take arguments larger than one frame', async () => {
      const words = Array.from({ length: 40 }, (_, index) => String(index % 10).repeat(5000));
      const { stdout } = await run(agent, [
        'sh',
        '-c',
        'echo $#; printf %s "$@" | sha256sum',
        'sh',
        ...words,
      ]);
      const hash = createHash('sha256').update(words.join('')).digest('hex');
      expect(stdout).toBe(`40\n${hash}  -\n`);
    });

    it('that close their input are not waited for', async () => {
      const argv = ['sh', '-c', 'exec 0<&-; echo closed; sleep 1000'] as const;
      const program = await agent.exec({ process: 1004, argv, stdin: true, stdout: true }, never);
      await nextLine(program.stdout);
      const closed = new Promise((resolve) => program.stdin?.once('close', resolve));
      program.stdin?.write(Buffer.alloc(MEBIBYTE));
      await closed;
      expect(program.stdin?.errored).toMatchObject({ code: 'EPIPE' });
      await program.kill(9, never);
      await program.wait(never);
      await program.release(never);
    });

    it('that nobody reads end when the reader goes', async () => {
      const program = await agent.exec({ process: 1005, argv: ['yes'], stdout: true }, never);
      program.stdout?.destroy();
      expect(await program.wait(never)).toMatchObject({ signal: 13 });
      await program.release(never);
    });
  });

  describe('a terminal', () => {
    it('has a size that changes, and is the program’s own', async () => {
      const script = [
        'import os, signal, sys',
        'def show():',
        '    size = os.get_terminal_size(0)',
        '    print(size.lines, size.columns, os.isatty(0), os.isatty(2), flush=True)',
        'signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])',
        'show()',
        'signal.sigwait([signal.SIGWINCH])',
        'show()',
        'sys.exit(3)',
      ].join('\n');
      const program = await agent.exec(
        {
          process: 1101,
          argv: ['python3', '-c', script],
          terminal: { rows: 24, columns: 80 },
          stdin: true,
          stdout: true,
          environment: ['PATH=/usr/bin:/bin'],
        },
        never,
      );
      const first = await nextLine(program.stdout);
      expect(first).toBe('24 80 True True\r\n');
      await program.resize({ rows: 50, columns: 132 }, never);
      expect(await textOf(program.stdout)).toBe('50 132 True True\r\n');
      expect(await program.wait(never)).toMatchObject({ exitCode: 3 });
      await program.release(never);
    });

    it('turns Ctrl-C into a signal', async () => {
      const terminal = { rows: 24, columns: 80 };
      const argv = ['sh', '-c', 'echo ready; exec sleep 1000'] as const;
      const program = await agent.exec({ process: 1102, argv, terminal, stdin: true, stdout: true }, never);
      await nextLine(program.stdout);
      program.stdin?.write('\x03');
      expect(await program.wait(never)).toMatchObject({ signal: 2 });
      program.stdout?.resume();
      await program.release(never);
    });

    it('is not there for a program without one', async () => {
      const program = await agent.exec({ process: 1103, argv: ['sleep', '1000'] }, never);
      await expect(program.resize({ rows: 1, columns: 1 }, never)).rejects.toMatchObject({
        data: { errno: 'ENOTTY' },
      });
      await program.kill(9, never);
      await program.wait(never);
      await program.release(never);
    });
  });

  describe('files', () => {
    it('go in with their modes, owners and times, as a whole, and come out again', async () => {
      const content = Buffer.from(Array.from({ length: 3 * MEBIBYTE }, (_, index) => index % 251));
      const path = native.path('copied');
      const options = { mode: 0o4751, uid: 101, gid: 102, mtimeNs: 1_700_000_000_123_456_789n };
      await agent.writeFile(path, Readable.from([content]), { ...options, sizeBytes: content.length }, never);
      const status = await stat(path, { bigint: true });
      expect(status).toMatchObject({ mode: 0o104751n, uid: 101n, gid: 102n, mtimeNs: options.mtimeNs });
      const read = await agent.readFile(path, never);
      expect(read.status).toEqual({
        mode: 0o104751,
        uid: 101,
        gid: 102,
        sizeBytes: content.length,
        mtimeNs: options.mtimeNs,
        target: undefined,
      });
      const chunks: Buffer[] = [];
      for await (const chunk of read.content) chunks.push(chunk as Buffer);
      expect(Buffer.concat(chunks).equals(content)).toBe(true);
    });

    it('may be empty', async () => {
      const path = native.path('empty');
      await agent.writeFile(path, Readable.from([]), {}, never);
      expect(await readFile(path, 'utf8')).toBe('');
      const { content } = await agent.readFile(path, never);
      expect(await textOf(content)).toBe('');
    });

    it('are written in place when that is asked for', async () => {
      const path = native.path('in-place');
      await writeFile(path, 'something longer');
      const { ino } = await stat(path);
      await agent.writeFile(path, Readable.from(['new']), { inPlace: true }, never);
      expect(await readFile(path, 'utf8')).toBe('new');
      expect((await stat(path)).ino).toBe(ino);
    });

    it('that come short, or whose source fails, or that are given up, are not there', async () => {
      const write = (content: Readable, signal = never): Promise<void> =>
        agent.writeFile(native.path('half'), content, { sizeBytes: 10 }, signal);
      await expect(write(Readable.from(['short']))).rejects.toMatchObject({ class: 'Cancelled' });
      const failing = new Readable({ read() {} });
      failing.push('some');
      const failed = write(failing);
      failing.destroy(new Error('the source failed'));
      await expect(failed).rejects.toThrow('the source failed');
      const given = new AbortController();
      const waiting = write(new Readable({ read() {} }), given.signal);
      given.abort(new Error('enough'));
      await expect(waiting).rejects.toThrow('enough');
      // One after another: when this is answered, what was given up is gone.
      await agent.ping(never);
      expect((await readdir(native.path('.'))).filter((name) => name === 'half')).toEqual([]);
    });

    it('have directories and links', async () => {
      await agent.makeDirectory(native.path('a/b/c'), { parents: true, mode: 0o710, uid: 101 }, never);
      expect(await stat(native.path('a/b/c'))).toMatchObject({ mode: 0o40710, uid: 101 });
      await agent.makeDirectory(native.path('a/b/c'), { parents: true }, never);
      await expect(agent.makeDirectory(native.path('a'), {}, never)).rejects.toMatchObject({
        class: 'AlreadyExists',
      });
      await agent.makeLink(native.path('a/link'), '../elsewhere', {}, never);
      expect(await agent.stat(native.path('a/link'), never)).toMatchObject({ target: '../elsewhere' });
      expect((await agent.list(native.path('a'), never)).map(String).sort()).toEqual(['b', 'link']);
    });

    it('are listed by the thousand', async () => {
      await agent.makeDirectory(native.path('many'), {}, never);
      const names = Array.from({ length: 3000 }, (_, index) => `${'n'.repeat(200)}${index}`).sort();
      await Promise.all(names.map((name) => writeFile(native.path(`many/${name}`), '')));
      expect((await agent.list(native.path('many'), never)).map(String).sort()).toEqual(names);
    });

    it('that are none are refused', async () => {
      await expect(agent.readFile('/nowhere', never)).rejects.toMatchObject({ class: 'NotFound' });
      await expect(agent.readFile('/', never)).rejects.toMatchObject({ data: { errno: 'EISDIR' } });
      await expect(agent.readFile('/dev/zero', never)).rejects.toMatchObject({ data: { errno: 'EINVAL' } });
      await expect(agent.list('/nowhere', never)).rejects.toMatchObject({ class: 'NotFound' });
      await expect(agent.stat('', never)).rejects.toMatchObject({ data: { errno: 'EINVAL' } });
    });
  });

  describe('streams', () => {
    const bytes = (isLong ? 1024 : 64) * MEBIBYTE;

    it('arrive whole and in order, in flat memory', { timeout: 600_000 }, async () => {
      const last = String(countTo(bytes));
      const expected = await exec(['sh', '-c', `seq 1 ${last} | sha256sum`], { signal: never, timeoutMs: 0 });
      const argv = ['seq', '1', last] as const;
      const program = await agent.exec({ process: 1201, argv, stdout: true }, never);
      const hash = createHash('sha256');
      const residentBefore = process.memoryUsage.rss();
      let size = 0;
      let agentResident = 0;
      for await (const chunk of program.stdout ?? []) {
        hash.update(chunk as Buffer);
        size += (chunk as Buffer).length;
        if (size < MEBIBYTE) agentResident = await native.residentBytes();
      }
      expect(`${hash.digest('hex')}  -\n`).toBe(expected.stdout);
      expect(size).toBeGreaterThan(bytes * 0.9);
      expect(await native.residentBytes()).toBeLessThan(agentResident + 4 * MEBIBYTE);
      expect(process.memoryUsage.rss()).toBeLessThan(residentBefore + 128 * MEBIBYTE);
      await program.wait(never);
      await program.release(never);
    });

    it('arrive whole in the other direction too', { timeout: 600_000 }, async () => {
      const argv = ['sha256sum'] as const;
      const program = await agent.exec({ process: 1202, argv, stdin: true, stdout: true }, never);
      const hash = createHash('sha256');
      const block = Buffer.alloc(MEBIBYTE);
      const blocks = function* (): Generator<Buffer> {
        for (let index = 0; index < bytes / MEBIBYTE; index += 1) {
          block.fill(index & 0xff);
          hash.update(block);
          yield Buffer.from(block);
        }
      };
      const { stdin } = program;
      if (!stdin) throw new Error('it has no standard input');
      Readable.from(blocks()).pipe(stdin);
      expect(await textOf(program.stdout)).toBe(`${hash.digest('hex')}  -\n`);
      await program.wait(never);
      await program.release(never);
    });

    it('that nobody reads hold up themselves alone', async () => {
      const unread = await agent.exec({ process: 1203, argv: ['yes'], stdout: true }, never);
      unread.stdout?.pause();
      for (let index = 0; index < 20; index += 1) await agent.ping(never);
      expect((await run(agent, ['echo', 'other'])).stdout).toBe('other\n');
      await unread.kill(9, never);
      await unread.wait(never);
      unread.stdout?.destroy();
      await unread.release(never);
    });
  });

  describe('a host', () => {
    it('that comes back finds the programs of the one before, and what they said', async () => {
      const argv = ['sh', '-c', 'read a; echo "got $a"; read b; echo "got $b"; exit 5'] as const;
      const before = await agent.exec({ process: 1301, argv, stdin: true, stdout: true }, never);
      before.stdin?.write('one\n');
      await nextLine(before.stdout);
      agent.close();
      await expect(before.wait(never)).rejects.toMatchObject({ class: 'Unavailable' });
      agent = await native.connect();
      expect(await agent.processes(never)).toMatchObject([{ process: 1301, end: undefined }]);
      const after = await agent.attach({ process: 1301, stdin: true, stdout: true }, never);
      after.stdin?.end('two\n');
      expect(await textOf(after.stdout)).toBe('got two\n');
      expect(await after.wait(never)).toMatchObject({ exitCode: 5 });
      // Even the end is told to each who asks, until it is released.
      agent.close();
      agent = await native.connect();
      const again = await agent.attach({ process: 1301 }, never);
      expect(await again.wait(never)).toMatchObject({ exitCode: 5 });
      await expect(agent.attach({ process: 1301, stderr: true }, never)).rejects.toMatchObject({
        data: { errno: 'EINVAL' },
      });
      await again.release(never);
    });

    it('that lets go of a program has nothing of it on the way, and finds it again where it was', async () => {
      const argv = ['sh', '-c', 'while read a; do echo "got $a"; done; exit 6'] as const;
      const before = await agent.exec({ process: 1399, argv, stdin: true, stdout: true }, never);
      before.stdin?.write('one\n');
      await nextLine(before.stdout);
      const rest = textOf(before.stdout);
      await agent.detach(1399, never);
      expect(await rest).toBe('');
      agent.close();
      agent = await native.connect();
      const after = await agent.attach({ process: 1399, stdin: true, stdout: true }, never);
      after.stdin?.end('two\nthree\n');
      expect(await textOf(after.stdout)).toBe('got two\ngot three\n');
      expect(await after.wait(never)).toMatchObject({ exitCode: 6 });
      await after.release(never);
      await expect(agent.detach(1399, never)).rejects.toMatchObject({ data: { errno: 'ESRCH' } });
    });

    it('that went away in the middle of a frame leaves nothing that the next one stumbles over', async () => {
      for (const cut of [1, 31, 32, 33, 5000]) {
        const lines = await native.lines();
        const payload = new FieldWriter().bytes('echo', Buffer.alloc(10_000, 0x8f)).payload();
        const frame = Buffer.concat(encodeFrame({ type: 'ping', id: 1, session: 77n }, payload));
        // On a port the half frame stays; here as well, for the next host goes on with the same connection.
        lines.control.write(frame.subarray(0, cut));
        lines.streams.write(frame.subarray(0, cut));
        const next = await MicrovmAgent.open(lines, AbortSignal.timeout(20_000));
        await next.ping(never);
        expect((await run(next, ['echo', 'whole'])).stdout).toBe('whole\n');
        next.close();
      }
      agent = await native.connect();
    });

    it('that reads nothing at all gets answers on control while a program floods its streams', async () => {
      const lines = await native.lines();
      const { session } = await AgentSession.open(lines, never);
      const fields = new FieldWriter().u32('process', 1302).text('argument', 'yes').u32('stdout', 4242);
      await session.call('exec', fields.u32('window', 32 * MEBIBYTE), never);
      lines.streams.pause();
      for (let index = 0; index < 50; index += 1) await session.call('ping', new FieldWriter(), never);
      const about = new FieldWriter().u32('process', 1302);
      const end = session.expectEnd(1302);
      await session.call('signal', about.u32('signal', 9), never);
      expect((await end).u32('exitSignal')).toBe(9);
      await session.call('release', new FieldWriter().u32('process', 1302), never);
      lines.control.destroy();
      agent = await native.connect();
    });
  });

  describe('the guest', () => {
    it('gets its name, its machine id, its resolver and its hosts', async () => {
      const machineId = '0123456789abcdef0123456789abcdef';
      await agent.setIdentity({ hostname: 'renamed', machineId, token: Buffer.from('token') }, never);
      await agent.setResolver({ nameservers: ['192.0.2.1'], search: ['a.test', 'b.test'] }, never);
      await agent.setHosts(['192.0.2.7 renamed'], never);
      const files = ['/etc/hostname', '/etc/machine-id', '/etc/resolv.conf', '/etc/hosts'];
      expect((await run(agent, ['sh', '-c', `hostname; cat ${files.join(' ')}`])).stdout).toBe(
        `renamed\nrenamed\n${machineId}\nnameserver 192.0.2.1\nsearch a.test b.test\n` +
          '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.7 renamed\n',
      );
      expect(await agent.inspect(never)).toMatchObject({ hostname: 'renamed', token: Buffer.from('token') });
      agent.close();
      agent = await native.connect();
      expect(agent.facts.token).toEqual(Buffer.from('token'));
    });

    it('gets all of that in one request as well', async () => {
      const machineId = 'fedcba9876543210fedcba9876543210';
      const resolver = { nameservers: ['192.0.2.2'], search: ['c.test'] };
      await agent.setIdentity(
        { hostname: 'once', machineId, names: { resolver, hosts: ['192.0.2.8 once'] } },
        never,
      );
      const files = ['/etc/hostname', '/etc/machine-id', '/etc/resolv.conf', '/etc/hosts'];
      expect((await run(agent, ['cat', ...files])).stdout).toBe(
        `once\n${machineId}\nnameserver 192.0.2.2\nsearch c.test\n` +
          '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.8 once\n',
      );
      const broken = { resolver, hosts: ['192.0.2.7 a\n192.0.2.8 b'] };
      await expect(agent.setIdentity({ hostname: 'once', names: broken }, never)).rejects.toThrow(
        'several lines',
      );
    });

    it('is named again, by shorter names too, and never through a link', async () => {
      const named = async (hostname: string): Promise<string> => {
        await agent.setIdentity({ hostname, names: { resolver: { nameservers: [] }, hosts: [] } }, never);
        return (await run(agent, ['cat', '/etc/hostname'])).stdout;
      };
      expect(await named('a-long-name')).toBe('a-long-name\n');
      expect(await named('short')).toBe('short\n');
      for (const link of ['ln -sf', 'ln -f']) {
        await run(agent, ['sh', '-c', `echo kept > /etc/other; ${link} /etc/other /etc/hostname`]);
        expect(await named('again')).toBe('again\n');
        expect((await run(agent, ['cat', '/etc/other'])).stdout).toBe('kept\n');
      }
    });

    it('does not take names and addresses that are none', async () => {
      await expect(agent.setIdentity({ machineId: 'short' }, never)).rejects.toMatchObject({
        data: { errno: 'EINVAL' },
      });
      await expect(agent.setHosts(['192.0.2.7 a\n192.0.2.8 b'], never)).rejects.toThrow('several lines');
      await expect(agent.setLink({ name: 'lo' }, { addresses: ['192.0.2.300/24'] }, never)).rejects.toThrow(
        'address 192.0.2.300/24',
      );
      await expect(agent.setLink({ name: 'eth7' }, { up: true }, never)).rejects.toMatchObject({
        class: 'NotFound',
      });
    });

    it('gets addresses and routes, and loses them again', async () => {
      const settings = {
        up: true,
        addresses: ['192.0.2.7/24', '2001:db8::7/64'],
        routes: [
          { destination: '198.51.100.0/24', gateway: '192.0.2.1' },
          { destination: '2001:db8:1::/48' },
        ],
      };
      await agent.setLink({ name: 'lo' }, settings, never);
      await agent.waitForLink({ name: 'lo' }, 10_000, never);
      const show = 'ip -o addr show dev lo | cut -d " " -f 7; ip route; ip -6 route | grep db8:1';
      const shown = (await run(agent, ['sh', '-c', show])).stdout;
      expect(shown).toContain('192.0.2.7/24\n');
      expect(shown).toContain('2001:db8::7/64\n');
      expect(shown).toContain('198.51.100.0/24 via 192.0.2.1 dev lo');
      expect(shown).toContain('2001:db8:1::/48 dev lo');
      await agent.setLink({ name: 'lo' }, { replace: true, addresses: ['127.0.0.1/8'] }, never);
      expect((await run(agent, ['sh', '-c', 'ip -o addr show dev lo | wc -l; ip route'])).stdout).toBe('1\n');
    });

    it('that is none keeps its clock, its random numbers and its disks', async () => {
      const refused = { class: 'Unsupported' };
      await expect(agent.seed(Buffer.alloc(64), never)).rejects.toMatchObject(refused);
      await expect(agent.setClock(1n, never)).rejects.toMatchObject(refused);
      await expect(agent.sync(never)).rejects.toMatchObject(refused);
      await expect(agent.freeze(1000, never)).rejects.toMatchObject(refused);
      await expect(agent.thaw(never)).rejects.toMatchObject(refused);
    });
  });

  it('that is killed takes nobody along who waits for it', { timeout: 60_000 }, async () => {
    const other = await NativeAgent.start();
    const session = await other.connect();
    const program = await session.exec({ process: 1, argv: ['sleep', '1000'], stdout: true }, never);
    const failures = [
      program.wait(never),
      textOf(program.stdout),
      session.waitForLink({ name: 'lo' }, 60_000, never),
    ].map((wait) =>
      wait.then(
        () => undefined,
        (error: unknown) => error,
      ),
    );
    await other.kill();
    for (const failure of await Promise.all(failures))
      expect(failure).toMatchObject({ class: 'Unavailable' });
    await expect(session.ping(never)).rejects.toMatchObject({ class: 'Unavailable' });
  });

  it('ends with its programs when it is told to', { timeout: 60_000 }, async () => {
    const other = await NativeAgent.start();
    const session = await other.connect();
    await session.exec({ process: 1, argv: ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done'] }, never);
    await session.exec({ process: 2, argv: ['sleep', '1000'] }, never);
    await session.power('off', 300, never);
    expect(await other.ended()).toEqual({ exitCode: 0, errors: '' });
    await other[Symbol.asyncDispose]();
  });
});

/** The warden over liblxc itself, with a root file system of busybox. */
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { classifySilence } from '../../drivers/processes/qmp/silence.ts';
import { MicrovmAgent } from '../../drivers/roost-agent/microvm-agent.ts';
import { exec } from '../../lib/exec.ts';
import { wardenPath } from '../../native/index.ts';
import { run } from '../guest/native-agent.ts';
import { describeWith } from '../harness/needs.ts';
import { makeDirectory, testDirectory } from '../harness/test-directory.ts';
import {
  busyboxRoot,
  FIRST_ID,
  received,
  shell,
  type WardenOptions,
  WardenProcess,
} from './warden-process.ts';

const { signal } = new AbortController();
const tool = async (...argv: readonly [string, ...string[]]): Promise<string> =>
  (await exec(argv, { signal })).stdout;

let root = '';
let image = '';

/** Everything of a warden that the host shows beside its groups. */
const leftOf = async (warden: WardenProcess): Promise<readonly string[]> => [
  ...(await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .filter((line) => line.includes(warden.directory)),
  ...(await tool('/sbin/losetup', '-a')).split('\n').filter((line) => line.includes(image)),
  ...(await readdir(warden.path('run'))).filter(
    (name) => !/^(qmp.sock|console.sock|control|streams)$/.test(name),
  ),
];

const start = async (options: WardenOptions = {}): Promise<WardenProcess> =>
  await WardenProcess.start({ real: true, lower: root, ...options });

const begun = async (options: WardenOptions = {}): Promise<WardenProcess> => {
  const warden = await start(options);
  await (await warden.monitor()).execute('cont', {}, { signal });
  return warden;
};

const agentOf = async (warden: WardenProcess): Promise<MicrovmAgent> => {
  await warden.event('VSERPORT_CHANGE');
  return await MicrovmAgent.connect(
    { control: warden.path('run/control'), streams: warden.path('run/streams') },
    signal,
  );
};

const childOf = async (pid: number): Promise<number> =>
  Number((await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).split(' ')[0]);

const isGone = async (pid: number): Promise<boolean> =>
  await stat(`/proc/${pid}/exe`).then(
    () => false,
    () => true,
  );

describeWith(['root', 'lxc'], 'a warden of a container', () => {
  beforeAll(async () => {
    root = await busyboxRoot();
    image = join(await makeDirectory('image'), 'root.sq');
    await tool('/usr/bin/mksquashfs', root, image, '-quiet', '-no-progress', '-noI', '-noD', '-noF', '-noX');
  }, 60_000);
  afterAll(async () => {
    await rm(root, { recursive: true });
    await rm(join(image, '..'), { recursive: true });
  });

  it.each(['lower', 'image'] as const)(
    'has a root file system over the %s whose owners are its own',
    async (kind) => {
      await using warden = await begun({ agent: true, ...(kind === 'image' ? { image } : {}) });
      const agent = await agentOf(warden);
      const script =
        'id -u; stat -c %u /bin/busybox; touch /a; touch /b; chown 7:8 /b; rm /etc/passwd; chmod 4755 /a';
      const { stdout, stderr, exitCode } = await run(agent, ['/bin/busybox', 'sh', '-c', script]);
      expect({ stdout, stderr, exitCode }).toEqual({ stdout: '0\n0\n', stderr: '', exitCode: 0 });
      const upper = await Promise.all(
        ['a', 'b', 'etc/passwd'].map((name) => stat(warden.path(`up/upper/${name}`))),
      );
      expect(upper.map(({ uid, gid, mode }) => [uid, gid, mode.toString(8)])).toEqual([
        [0, 0, '104755'],
        [7, 8, '100644'],
        // A whiteout.
        [0, 0, '20000'],
      ]);
      expect((await stat(join(root, 'etc/passwd'))).isFile()).toBe(true);
      // To the host they are nobody's that has anything.
      const init = await childOf(await childOf(warden.pid));
      expect(await readFile(`/proc/${init}/status`, 'utf8')).toMatch(`Uid:\t${FIRST_ID}\t`);
      // And no path of the host is seen.
      expect((await run(agent, ['/bin/busybox', 'cat', '/proc/mounts'])).stdout).not.toContain(
        warden.directory,
      );
      expect((await run(agent, ['/bin/busybox', 'cat', '/proc/1/comm'])).stdout).toBe('init\n');
      agent.close();
    },
  );

  it('gives the container no descriptor of its own', async () => {
    await using warden = await begun({ agent: true });
    const agent = await agentOf(warden);
    const list = async (pid: string): Promise<string> =>
      (await run(agent, ['/bin/busybox', 'sh', '-c', `busybox readlink -f /proc/${pid}/fd/*`])).stdout;
    expect((await list('1')).split('\n').filter((path) => !/^(\/dev\/.*|\/sbin\/init|)$/.test(path))).toEqual(
      [],
    );
    expect(await list('self')).not.toContain('roost');
    const names = await run(agent, ['/bin/busybox', 'ps', '-o', 'comm,args']);
    expect(names.stdout).toMatch(/^roost-agent +roost-agent/m);
    agent.close();
  });

  it('leaves nothing behind an end, whatever the container made of groups', async () => {
    // Deeper than a path may be long, or a process have files open.
    const make =
      'cd /sys/fs/cgroup/pids && for i in $(busybox seq 1500); do busybox mkdir n && cd n; done; exit 0';
    await using warden = await start({ image, init: shell(make) });
    await (await warden.monitor()).execute('cont', {}, { signal });
    expect(await warden.exit).toEqual({ code: 0, signal: null });
    expect(await warden.told()).toContainEqual(['CONTAINER_END', { status: 0 }]);
    expect(await warden.groups()).toEqual([]);
    expect(await leftOf(warden)).toEqual([]);
  });

  it.each([
    ['powers off', 'busybox poweroff -f', 'guest-shutdown', { signal: 2 }],
    ['ends with a status', 'exit 3', 'guest-panic', { status: 3 }],
    ['ends well', 'exit 0', 'guest-shutdown', { status: 0 }],
  ])('tells of an init that %s', async (_how, script, reason, how) => {
    await using warden = await begun({ init: shell(script) });
    expect(await warden.exit).toEqual({ code: 0, signal: null });
    expect((await warden.told()).slice(-2)).toEqual([
      ['SHUTDOWN', { guest: true, reason }],
      ['CONTAINER_END', how],
    ]);
  });

  it('says what liblxc says of a container that cannot run', async () => {
    await using warden = await start({ config: 'lxc.net.0.type = phys\nlxc.net.0.link = nosuch0' });
    const words = 'Failed to retrieve ifindex for "nosuch0"';
    await expect((await warden.monitor()).execute('cont', {}, { signal })).rejects.toThrow(words);
    expect(await warden.exit).toEqual({ code: 1, signal: null });
    expect((await warden.read('process.log')).trimEnd().split('\n').at(-1)).toContain(words);
    await using misread = await start({ config: 'lxc.nosuch = 1' });
    expect(await misread.exit).toEqual({ code: 125, signal: null });
    expect(await misread.read('process.log')).toContain('Unsupported config key "lxc.nosuch"');
  });

  it('asks nobody else on the host for its range of ids', async () => {
    const programs = await testDirectory('bin');
    for (const part of ['up', 'work']) await mkdir(join(programs, part));
    for (const name of ['newuidmap', 'newgidmap']) {
      await writeFile(join(programs, 'up', name), '#!/bin/sh\nexit 1\n');
      await chmod(join(programs, 'up', name), 0o4755);
    }
    await using warden = await begun({ programs });
    expect(await (await warden.monitor()).execute('query-status', {}, { signal })).toMatchObject({
      status: 'running',
    });
  });

  it('goes on over a reboot inside, with its agent', async () => {
    const once = '[ -e /once ] && exec busybox sleep 1000; busybox touch /once; busybox reboot -f';
    await using warden = await begun({ init: shell(once), agent: true });
    expect(await warden.event('RESET')).toEqual({ guest: true, reason: 'guest-reset' });
    const agent = await agentOf(warden);
    await agent.ping(signal);
    agent.close();
  });

  it('takes a veth in, and gives it back for the next run and at the end', async () => {
    const [link, peer] = [`rv${process.pid}`, `rp${process.pid}`];
    await tool('/sbin/ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', peer);
    try {
      const config = `lxc.net.0.type = phys\nlxc.net.0.link = ${peer}\nlxc.net.0.name = eth0\nlxc.net.0.flags = up`;
      await using warden = await begun({ config, agent: true });
      const seen = async (): Promise<string> => {
        const agent = await agentOf(warden);
        const { stdout } = await run(agent, ['/bin/busybox', 'ls', '/sys/class/net']);
        agent.close();
        return stdout;
      };
      expect(await seen()).toMatch(/^eth0\n/m);
      await expect(tool('/sbin/ip', 'link', 'show', peer)).rejects.toThrow('does not exist');
      const monitor = await warden.monitor();
      await monitor.execute('system_reset', {}, { signal });
      await warden.event('VSERPORT_CHANGE');
      expect(await seen()).toMatch(/^eth0\n/m);
      warden.kill('SIGTERM');
      await warden.exit;
      expect(await tool('/sbin/ip', 'link', 'show', peer)).toContain('state DOWN');
    } finally {
      await tool('/sbin/ip', 'link', 'delete', link);
    }
  });

  it('has a console that changes no byte', async () => {
    const raw = 'busybox stty raw -echo; echo ready; exec busybox cat';
    await using warden = await start({ init: shell(raw) });
    const console = await warden.line('console.sock');
    await (await warden.monitor()).execute('cont', {}, { signal });
    expect(await received(console, 'ready')).toBe('ready\n');
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index)).toString('latin1');
    console.write(Buffer.from(`${bytes}end`, 'latin1'));
    expect(await received(console, 'end')).toBe(`${bytes}end`);
    expect(await readFile(warden.path('console.log'), 'latin1')).toBe(`ready\n${bytes}end`);
  });

  it('stands still, and goes on', async () => {
    await using warden = await begun({ agent: true });
    const agent = await agentOf(warden);
    agent.close();
    const monitor = await warden.monitor();
    const init = await childOf(await childOf(warden.pid));
    const silence = async (): Promise<string> =>
      await classifySilence(await childOf(await childOf(warden.pid)));
    await monitor.execute('stop', {}, { signal });
    expect(await monitor.execute('query-status', {}, { signal })).toEqual({
      status: 'paused',
      running: false,
    });
    expect(await silence()).toBe('stopped');
    // Begun again only when it is to go on.
    await monitor.execute('system_reset', {}, { signal });
    expect(await warden.event('RESET')).toMatchObject({ guest: false });
    expect(await isGone(init)).toBe(true);
    expect(await monitor.execute('query-status', {}, { signal })).toMatchObject({ status: 'paused' });
    await monitor.execute('cont', {}, { signal });
    expect(await silence()).toBe('busy');
    await monitor.execute('stop', {}, { signal });
    await monitor.execute('cont', {}, { signal });
    expect(await silence()).toBe('busy');
    await monitor.execute('stop', {}, { signal });
    warden.kill('SIGTERM');
    expect(await warden.exit).toEqual({ code: 0, signal: null });
    expect(
      (await warden.told()).map(([event]) => event).filter((event) => event !== 'VSERPORT_CHANGE'),
    ).toEqual('RESUME STOP RESET RESUME STOP RESUME STOP SHUTDOWN CONTAINER_END'.split(' '));
    expect(await warden.groups()).toEqual([]);
  });

  it.each(['running', 'frozen'])('leaves nothing but groups when it is killed, %s', async (state) => {
    await using warden = await start({ image, agent: true });
    const monitor = await warden.monitor();
    await monitor.execute('cont', {}, { signal });
    await warden.event('VSERPORT_CHANGE');
    const init = await childOf(await childOf(warden.pid));
    if (state === 'frozen') await monitor.execute('stop', {}, { signal });
    warden.kill('SIGKILL');
    await warden.exit;
    await warden.clear();
    await expect.poll(() => isGone(init)).toBe(true);
    await expect.poll(() => leftOf(warden)).toEqual([]);
    // What was written is whole, and the container begins again.
    await using next = await warden.again({ real: true, image });
    await (await next.monitor()).execute('cont', {}, { signal });
  });

  it.each([1, 20, 40, 60])(
    'leaves nothing but groups when it is killed on its way, %s lines on',
    async (count) => {
      await using warden = await start({ image });
      void (await warden.monitor()).execute('cont', {}, { signal }).catch(() => undefined);
      const lines = async (): Promise<number> => (await warden.read('lxc.log')).split('\n').length;
      await expect.poll(lines, { interval: 1 }).toBeGreaterThan(count);
      warden.kill('SIGKILL');
      await warden.exit;
      await warden.clear();
      await expect.poll(() => leftOf(warden)).toEqual([]);
      expect(await warden.groups()).toEqual([]);
    },
  );

  it('does not begin where nothing can be written', async () => {
    const upper = await testDirectory('ro');
    await tool('/bin/mount', '-t', 'tmpfs', 'none', upper);
    try {
      for (const part of ['upper', 'work']) await mkdir(join(upper, part));
      await tool('/bin/mount', '-o', 'remount,ro', upper);
      await using warden = await start({ upper });
      expect(await warden.exit).toEqual({ code: 125, signal: null });
      expect(await warden.read('process.log')).toContain(
        `roost-warden: mount an overlay of ${upper} on ${root}: `,
      );
    } finally {
      await tool('/bin/umount', upper);
    }
  });

  it('shows the whole root file system to another program', async () => {
    const directory = await testDirectory('mounted');
    for (const part of ['run', 'up', 'up/upper', 'up/work', 'up/upper/etc'])
      await mkdir(join(directory, part));
    await writeFile(join(directory, 'up/upper/etc/new'), 'new');
    await chmod(join(directory, 'up/upper/etc/new'), 0o640);
    await symlink('nowhere', join(directory, 'up/upper/etc/link'));
    await tool('/bin/mknod', join(directory, 'up/upper/etc/passwd'), 'c', '0', '0');
    const place = ['--run', join(directory, 'run'), '--image', image, '--upper', join(directory, 'up')];
    const saved = join(directory, 'saved.sq');
    await tool(
      wardenPath(),
      '--mounted',
      ...place,
      '--',
      '/usr/bin/mksquashfs',
      '.',
      saved,
      '-quiet',
      '-no-progress',
    );
    const listed = await tool('/usr/bin/unsquashfs', '-lln', saved);
    expect(listed).toMatch(/^-rw-r----- 0\/0 +3 .* squashfs-root\/etc\/new$/m);
    expect(listed).toMatch(/squashfs-root\/bin\/busybox$/m);
    expect(listed).not.toContain('etc/passwd');
    await expect(tool(wardenPath(), '--mounted', ...place, '--', '/bin/touch', 'x')).rejects.toThrow(
      'Read-only',
    );
    await expect(tool(wardenPath(), '--mounted', ...place, '--', '/no/such')).rejects.toThrow('No such file');
    expect(await readdir(join(directory, 'run'))).toEqual([]);
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(directory);
  });
});

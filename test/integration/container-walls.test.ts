/** What a container sees of its host and may do to it, looked at from inside by its root; and who it is outside. */
import { readFile, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { beginWithBusybox, execIn, initPidOf, shellIn, startContainer } from '../harness/containers.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { runRoost } from '../harness/roost-cli.ts';

/** Bits of capabilities(7) that no container has by default. */
const DROPPED = { sys_module: 16, sys_rawio: 17, sys_time: 25, mac_override: 32, mac_admin: 33 } as const;
const NET_RAW = 13;

const has = (mask: string, bit: number): boolean => ((BigInt(`0x${mask}`) >> BigInt(bit)) & 1n) === 1n;

const boundingSet = (status: string): string => /^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? 'none';

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'root of a container', () => {
  it('sees no file, device, process or interface of the host', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
    await startContainer(at, 'one', { nics: [{ network: 'lan' }] });
    const shell = shellIn(at, 'one');
    const mounts = await shell('cat /proc/self/mountinfo');
    for (const path of [home.stateDirectory, home.runDirectory, '/tmp/', '/var/', 'roost', 'loop'])
      expect(mounts).not.toContain(path);
    expect(await shell('ls /')).toBe('bin\ndev\netc\nproc\nroot\nrun\nsbin\nsys\ntmp\nvar');
    const processes = (await shell('ps -o pid,args')).split('\n').slice(1);
    expect(processes.length).toBeLessThan(10);
    for (const line of processes) expect(line).toMatch(/^ *\d+ .*(init|sleep|roost-agent|sh -c|ps)/);
    expect(await shell('ls /sys/class/net | sort | xargs echo')).toBe('eth0 lo');
    expect(await shell('ls -A /sys/block /sys/class/block /sys/devices/virtual/block')).not.toMatch(
      /loop|vd|sd|nvme|ram|dm-/,
    );
    // Devices are nodes of the host, mounted one by one: all are harmless.
    expect((await shell('find /dev -type b')).split('\n').filter(Boolean)).toEqual([]);
    expect((await shell('find /dev -type c | sort')).split('\n')).toEqual(
      expect.arrayContaining(['/dev/null', '/dev/zero']),
    );
    for (const path of (await shell('find /dev -type c')).split('\n'))
      expect(path).toMatch(/^\/dev\/(console|full|null|ptmx|pts\/(ptmx|\d+)|random|tty|urandom|zero)$/);
    expect(await shell('hostname')).not.toBe(hostname());
    expect(await shell('ls /proc/1/root/ | head -n 1')).toBe('bin');
    // Its keys, abstract sockets and shared memory are its own too.
    expect(await shell("grep -c '@' /proc/net/unix || true")).toBe('0');
    await leaveNothing(at);
  });

  it('changes nothing of the host: no device, mount, clock, kernel or foreign process is within its reach', async () => {
    const at = await beginWithBusybox();
    await startContainer(at, 'one');
    const exec = execIn(at, 'one');
    const clock = Date.now();
    const refused = [
      'mknod /root/disk b 254 0',
      'mknod /root/memory c 1 1',
      'mount -t ext4 /dev/vda /mnt',
      'mkdir -p /mnt && mount -t ext4 /dev/root /mnt',
      'mkdir -p /mnt && mount -t devtmpfs none /mnt',
      'mkdir -p /mnt && mount -t cgroup -o devices none /mnt && echo a >/mnt/devices.allow',
      'date -s 2001-01-01; test "$(date +%Y)" = 2001',
      'echo h >/proc/sysrq-trigger',
      'mount -o remount,rw /proc/sys; echo 1 >/proc/sys/kernel/panic',
      'echo evil >/proc/sys/kernel/core_pattern',
      'echo 1 >/proc/sys/vm/drop_caches',
      'echo /bin/sh >/sys/kernel/uevent_helper',
      'dd if=/proc/kcore of=/dev/null bs=1 count=1',
      'dd if=/dev/mem of=/dev/null bs=1 count=1',
      'dmesg',
      'test -c /dev/kmsg',
      'insmod /bin/busybox',
      'swapoff -a && swapon /bin/busybox',
      'losetup /dev/loop0 /bin/busybox',
      'chroot /proc/1/root/proc/1/root/../../.. test -e /.cache',
      ...['memory.limit_in_bytes', 'pids.max', 'cpu.cfs_quota_us'].map((file) => {
        const place = `/run/${file}`;
        const mount = `mkdir ${place} && mount -t cgroup -o ${file.replace(/\..*/, '')} none ${place}`;
        return `${mount} && for group in ${place} ${place}/..; do echo 8000000 >$group/${file} && exit 0; done; exit 1`;
      }),
    ];
    const script = refused.map((line, index) => `( ${line} ) >/dev/null 2>&1 && echo "${index} was done"`);
    const { stdout, code } = await exec('sh', '-c', [...script, 'true'].join('\n'));
    expect({
      code,
      done: stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => refused[Number.parseInt(line, 10)]),
    }).toEqual({ code: 0, done: [] });
    expect(Math.abs(Date.now() - clock)).toBeLessThan(10 * 60_000);
    await leaveNothing(at);
  });

  it('is nobody outside, with ids that no other container has, and owns its files on disk as itself', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    for (const name of ['one', 'two']) await startContainer(at, name);
    const [one, two] = await Promise.all(['one', 'two'].map((name) => daemon.guest(name)));
    const [first, second] = [one?.idRange?.first ?? 0, two?.idRange?.first ?? 0];
    expect(first).toBeGreaterThan(65_535);
    expect(Math.abs(first - second)).toBeGreaterThanOrEqual(65_536);
    for (const guest of [one, two]) {
      const pid = await initPidOf(home, guest?.id ?? '');
      const id = guest?.idRange?.first;
      const status = await readFile(`/proc/${pid}/status`, 'utf8');
      expect(status).toContain(`\nUid:\t${id}\t${id}\t${id}\t${id}\n`);
      expect(status).toContain(`\nGid:\t${id}\t${id}\t${id}\t${id}\n`);
      expect(status).toMatch(/^Groups:\s*$/m);
      expect((await readFile(`/proc/${pid}/uid_map`, 'utf8')).trim().split(/\s+/)).toEqual([
        '0',
        String(id),
        '65536',
      ]);
      expect((await readFile(`/proc/${pid}/gid_map`, 'utf8')).trim().split(/\s+/)).toEqual([
        '0',
        String(id),
        '65536',
      ]);
    }
    const shell = shellIn(at, 'one');
    await shell(
      'echo mine >/root/note; mkdir /srv; touch /srv/theirs; chown 33:44 /srv/theirs; cp /bin/busybox /root/su; chmod 4755 /root/su',
    );
    const upper = join(home.stateDirectory, 'pools/default/guests', one?.id ?? '', 'root/upper');
    expect(await stat(join(upper, 'root/note'))).toMatchObject({ uid: 0, gid: 0 });
    expect(await stat(join(upper, 'srv/theirs'))).toMatchObject({ uid: 33, gid: 44 });
    // A set-uid program of root's is passed by nobody on its way.
    expect((await stat(join(upper, '..'))).mode & 0o077).toBe(0);
    await daemon.succeed('guest-stop', { guest: 'one' });
    await daemon.succeed('guest-start', { guest: 'one' });
    expect((await daemon.guest('one')).idRange).toEqual(one?.idRange);
    await leaveNothing(at);
  });

  it('has the capabilities that it is left, and a filter of system calls', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'plain');
    await startContainer(at, 'less', { dropCapabilities: ['net_raw'], keepCapabilities: ['sys_time'] });
    const statusOf = (name: string) => shellIn(at, name)('cat /proc/1/status');
    const [plain, less] = [await statusOf('plain'), await statusOf('less')];
    for (const status of [plain, less]) expect(status).toMatch(/^Seccomp:\s2$/m);
    for (const bit of Object.values(DROPPED)) expect(has(boundingSet(plain), bit)).toBe(false);
    expect(has(boundingSet(plain), NET_RAW)).toBe(true);
    expect(has(boundingSet(less), NET_RAW)).toBe(false);
    expect(has(boundingSet(less), DROPPED.sys_time)).toBe(true);
    expect(has(boundingSet(less), DROPPED.sys_module)).toBe(false);
    // Of what is run by the agent it holds as of what the init runs.
    expect(boundingSet(await shellIn(at, 'less')('cat /proc/self/status'))).toBe(boundingSet(less));
    expect(await shellIn(at, 'less')('grep Seccomp: /proc/self/status')).toMatch(/2$/);
    // It is root of its own namespace alone: the clock stays the host's.
    expect((await execIn(at, 'less')('date', '-s', '2001-01-01')).stderr).toContain('not permitted');
    expect(await runRoost(home, ['update', 'plain', '--cap-drop', 'net_raw'])).toMatchObject({ code: 0 });
    expect((await daemon.guest('plain')).pendingChanges).toEqual(['boot']);
    await leaveNothing(at);
  });

  it('may mount /proc and /sys anew in namespaces of its own where it may nest, and not where it may not', async () => {
    const at = await beginWithBusybox();
    await startContainer(at, 'nests', { nesting: true });
    await startContainer(at, 'plain');
    const nested = [
      'unshare',
      '-Urmpf',
      'sh',
      '-c',
      'mount -t proc proc /proc && ls -d /proc/[0-9]* | head -n 1',
    ];
    expect(await execIn(at, 'nests')(...nested)).toMatchObject({ code: 0, stdout: '/proc/1\n' });
    expect((await execIn(at, 'plain')(...nested)).code).not.toBe(0);
    const mounts = await shellIn(at, 'nests')('cat /proc/self/mountinfo');
    expect(mounts).not.toContain(at.home.stateDirectory);
    await leaveNothing(at);
  });
});

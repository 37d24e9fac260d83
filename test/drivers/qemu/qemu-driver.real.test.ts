/** What only real QEMUs show: identity, sandbox, silence, spoofed locks, machines, devices. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync } from 'node:fs';
import { mkdir, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { GuestHandle, Launch } from '../../../drivers/driver.ts';
import { directoriesLockPath, lockPath, logPath } from '../../../drivers/processes/guest-files.ts';
import { parseHolder } from '../../../drivers/processes/process-lock.ts';
import { deferred } from '../../../lib/abort.ts';
import { hostControlGroups } from '../../../lib/control-groups.ts';
import { openTap } from '../../../native/index.ts';
import { type GuestSpec, machineFamilies } from '../../../protocol/guest.ts';
import type { GuestId, MacAddress } from '../../../protocol/types.ts';
import { never, Witness } from '../../conformance/driver.ts';
import { directoryServers } from '../../harness/directory-servers.ts';
import { describeWith } from '../../harness/needs.ts';
import { makeQemuHarness, processEnd, type QemuHarness } from './qemu-harness.ts';

const signal = never();
const anyId = '0b6a3f4e-3c9f-4d0c-8d52-3f0a1f1f7a11' as GuestId;

let harness: QemuHarness;
let witness: Witness;
const living: GuestHandle[] = [];

const start = async (
  launch: Launch,
  by = harness.driver(),
  descriptors: ReadonlyMap<string, number> = new Map(),
): Promise<GuestHandle> => {
  const handle = await by.launch(launch, { signal, descriptors, observe: witness.observe });
  living.push(handle);
  return handle;
};

/** The fields of /proc/PID/status. */
const statusOf = async (pid: number): Promise<ReadonlyMap<string, string>> => {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  return new Map(
    text.split('\n').map((line): [string, string] => {
      const [name = '', value = ''] = line.split(':\t');
      return [name, value.trim().replaceAll('\t', ' ')];
    }),
  );
};

/** What was told, without a guest's slowness: on a machine that has much to do it may be slow as well as stopped. */
const storyWithoutSlowness = (): readonly string[] => {
  let isSilent = false;
  return witness.story.filter((told) => {
    if (told === 'silent busy') return false;
    const wasSilent = isSilent;
    isSilent = told.startsWith('silent') || (isSilent && told !== 'heard');
    return told !== 'heard' || wasSilent;
  });
};

const consoleOf = async (launch: Launch): Promise<string> =>
  (await harness.driver().readLog(launch.place, 'console', { maxBytes: 65_536 })).text;
const banner = async (launch: Launch): Promise<void> =>
  expect.poll(() => consoleOf(launch), { interval: 20, timeout: 60_000 }).toContain(harness.banner);

beforeEach(() => {
  witness = new Witness();
});
afterEach(async () => {
  for (const handle of living.splice(0)) {
    await handle.kill(signal).catch(() => undefined);
    await handle.release();
    await processEnd(handle.process);
  }
  await harness[Symbol.asyncDispose]();
});

describeWith(['qemu', 'root'], 'a guest under a uid of its own', () => {
  beforeEach(async () => {
    harness = await makeQemuHarness({ ownUid: true });
  });

  it('has that uid, no capability, no way to new privileges, and a filter of system calls', async () => {
    const launch = await harness.makeLaunch('idle');
    const { process } = await start(launch);
    const status = await statusOf(process.pid);
    const uid = launch.place.credentials?.uid ?? 0;
    expect(status.get('Uid')).toBe(`${uid} ${uid} ${uid} ${uid}`);
    expect(status.get('Gid')).toBe(`${uid} ${uid} ${uid} ${uid}`);
    expect(status.get('Groups')).toBe('');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
      expect(status.get(set)).toBe('0000000000000000');
    }
    expect(status.get('NoNewPrivs')).toBe('1');
    expect(status.get('Seccomp')).toBe('2');
    expect(await readFile(`/proc/${process.pid}/oom_score_adj`, 'utf8')).toBe('200\n');
    expect(await readlink(`/proc/${process.pid}/cwd`)).toBe(launch.place.stateDirectory);
    const environment = (await readFile(`/proc/${process.pid}/environ`, 'utf8')).split('\0').filter(Boolean);
    expect(new Set(environment.map((entry) => entry.split('=')[0]))).toEqual(new Set(['LC_ALL', 'PATH']));
  });

  it('inherits what it is meant to, and nothing else of the daemon', async () => {
    const launch = await harness.makeLaunch('idle');
    const { process } = await start(launch);
    const folder = `/proc/${process.pid}/fd`;
    const numbers = (await readdir(folder)).map(Number).toSorted((a, b) => a - b);
    const targets = new Map<number, string>();
    for (const number of numbers) targets.set(number, await readlink(join(folder, String(number))));
    expect(targets.get(1)).toBe(logPath(launch.place, 'events'));
    expect(targets.get(2)).toBe(logPath(launch.place, 'process'));
    expect(targets.get(3)).toBe(lockPath(launch.place));
    // QEMU keeps a copy of the console's log and closes number 6.
    expect([...targets.values()]).toContain(logPath(launch.place, 'console'));
    const others = [...targets].flatMap(([number, target]) => (number > 3 ? [target] : []));
    const known = /^(socket:|anon_inode:|pipe:|\/dev\/(urandom|null)|\/memfd:)/;
    const disk = launch.disks[0]?.path ?? '';
    const strange = others.filter(
      (target) => !known.test(target) && target !== disk && target !== logPath(launch.place, 'console'),
    );
    expect(strange).toEqual([]);
  });

  it('cannot write into the files that tell about it, nor read them by name', async () => {
    const launch = await harness.makeLaunch('idle');
    await start(launch);
    for (const stream of ['console', 'process', 'events'] as const) {
      const { uid, mode } = await stat(logPath(launch.place, stream));
      expect([uid, mode & 0o777]).toEqual([0, 0o600]);
    }
    expect((await stat(join(launch.place.stateDirectory, 'log'))).mode & 0o777).toBe(0o700);
    expect((await stat(join(launch.place.runDirectory, 'qmp.sock'))).uid).toBe(0);
  });

  const hostGroups = hostControlGroups();
  it.runIf(hostGroups.kind === 'cgroup')(
    `is in a control group of its own before it runs, which goes with it (${hostGroups.why})`,
    async () => {
      const launch = await harness.makeLaunch('idle');
      const driver = harness.driver({ groups: hostGroups });
      const handle = await start(launch, driver);
      const group = driver.runObjects(launch.place, launch).find(({ kind }) => kind === 'cgroup')?.name ?? '';
      const members = await readFile(join(group, 'cgroup.procs'), 'utf8');
      expect(members.trim().split('\n')).toContain(String(handle.process.pid));
      const inspected = (): ReturnType<typeof driver.inspect> => driver.inspect(launch.place);
      expect(await inspected()).toContainEqual({ kind: 'cgroup', name: group });
      // Somebody else's handle takes it over where it is.
      const next = harness.driver({ groups: hostGroups });
      await handle.release();
      const taken = await next.attach(launch.place, { signal, cursor: 0, observe: witness.observe });
      expect(await readFile(join(group, 'cgroup.procs'), 'utf8')).toBe(members);
      await taken.kill(signal);
      await next.clear(launch.place);
      await next.clear(launch.place);
      expect(await inspected()).toEqual([]);
    },
  );

  const filesystems = [
    { source: '/usr/share', target: '/one', readOnly: true, mode: 'share' as const },
    { source: '/usr/lib', target: '/two', readOnly: false, mode: 'share' as const },
  ];

  it.runIf(existsSync('/usr/lib/qemu/virtiofsd'))(
    'has who serves it directories in its group, gone with it, also where they were stopped',
    async () => {
      const launch = { ...(await harness.makeLaunch('idle', { filesystems })), filesystems };
      const driver = harness.driver({ groups: hostGroups });
      const handle = await start(launch, driver);
      const group = driver.runObjects(launch.place, launch).find(({ kind }) => kind === 'cgroup')?.name;
      const inspected = (): ReturnType<typeof driver.inspect> => driver.inspect(launch.place);
      expect(await inspected()).toContainEqual({ kind: 'process', name: directoriesLockPath(launch.place) });
      // Both, and what each has made in a namespace of its own.
      const servers = directoryServers({ stateDirectory: harness.stateRoot });
      expect(servers).toHaveLength(4);
      const members = group === undefined ? undefined : await readFile(join(group, 'cgroup.procs'), 'utf8');
      const pids = [handle.process.pid, ...servers].map(String);
      expect(members?.trim().split('\n').toSorted() ?? pids.toSorted()).toEqual(pids.toSorted());
      for (const pid of servers) process.kill(pid, 'SIGSTOP');
      await handle.kill(signal);
      await driver.clear(launch.place);
      expect(directoryServers({ stateDirectory: harness.stateRoot })).toEqual([]);
      expect(await inspected()).toEqual([]);
    },
  );

  it.runIf(existsSync('/usr/lib/qemu/virtiofsd'))(
    'whose directories nobody serves does not start, and says why',
    async () => {
      const launch = { ...(await harness.makeLaunch('idle', { filesystems })), filesystems };
      const virtiofsdPath = join(harness.stateRoot, 'virtiofsd');
      await writeFile(virtiofsdPath, '#!/bin/sh\necho "it is broken" >&2\n', { mode: 0o755 });
      const driver = harness.driver({ groups: hostGroups, virtiofsdPath });
      await expect(start(launch, driver)).rejects.toThrow('nobody serves its directories: it is broken');
      const missing = [{ source: '/no/such', target: '/one', readOnly: false }];
      await expect(start({ ...launch, filesystems: missing }, driver)).rejects.toMatchObject({
        class: 'FailedPrecondition',
      });
      expect(await driver.inspect(launch.place)).toEqual([]);
    },
  );

  it('whose launch fails leaves no control group', async () => {
    const launch = await harness.makeLaunch('idle');
    const driver = harness.driver({ groups: hostGroups });
    const broken = {
      ...launch,
      qemu: { ...launch.qemu, extraArgs: [{ argument: '-nonsense', reason: 'x' }] },
    };
    await expect(start(broken, driver)).rejects.toMatchObject({ class: 'HostError' });
    expect(await driver.inspect(launch.place)).toEqual([]);
  });

  it('that writes another pid into its lock harms nobody by it', async () => {
    const launch = await harness.makeLaunch('idle');
    const handle = await start(launch);
    const path = lockPath(launch.place);
    expect(parseHolder(await readFile(path, 'utf8'))).toEqual(handle.process);
    const innocent = spawn('sleep', ['1000'], { stdio: 'ignore' });
    try {
      await once(innocent, 'spawn');
      const fields = (await readFile(`/proc/${innocent.pid}/stat`, 'utf8')).split(' ');
      const { bootId } = handle.process;
      for (const lie of [`${innocent.pid} ${fields[21]} ${bootId}\n`, 'nonsense', '']) {
        await writeFile(path, lie);
        await handle.release();
        const again = await harness
          .driver()
          .attach(launch.place, { signal, cursor: 0, observe: () => undefined });
        expect(again.process).toEqual(handle.process);
        await again.release();
      }
      await harness.driver().destroy(launch.place, signal);
      await processEnd(handle.process);
      expect(innocent.exitCode).toBeNull();
      expect(innocent.signalCode).toBeNull();
    } finally {
      const ended = once(innocent, 'exit');
      innocent.kill('SIGKILL');
      await ended;
    }
  });

  it('is known, and can be ended, after its run directory was deleted under it', async () => {
    const launch = await harness.makeLaunch('idle');
    const { process } = await start(launch);
    await rm(launch.place.runDirectory, { recursive: true });
    expect(await harness.driver().probe(launch.place)).toBe('alive');
    const context = { signal, cursor: 0, observe: () => undefined };
    await expect(harness.driver().attach(launch.place, context)).rejects.toMatchObject({
      class: 'Unavailable',
    });
    await expect(harness.driver().clear(launch.place)).rejects.toMatchObject({ class: 'FailedPrecondition' });
    await harness.driver().destroy(launch.place, signal);
    await processEnd(process);
    await harness.driver().clear(launch.place);
    expect(await harness.driver().inspect(harness)).toEqual([]);
  });

  it('is refused KVM with the name of the group when its uid cannot open the device', async () => {
    const device = await stat('/dev/kvm').catch(() => undefined);
    if (device && (device.mode & 0o006) === 0o006) return;
    const launch = await harness.makeLaunch('idle');
    const insisting: Launch = { ...launch, qemu: { ...launch.qemu, accel: 'kvm' } };
    await expect(start(insisting)).rejects.toMatchObject({
      class: 'Unsupported',
      hint: expect.stringMatching(/group kvm|kvm_intel/),
    });
    const trying: Launch = { ...launch, qemu: { ...launch.qemu, accel: 'auto' } };
    expect((await start(trying)).accel).toBe('tcg');
  });
});

describeWith(['qemu', 'root', 'tun'], 'a guest with taps', () => {
  it('gets each by its descriptor, which goes with it', async () => {
    harness = await makeQemuHarness({ ownUid: true });
    const links = ['a', 'b'].map((letter) => `rt${letter}${process.pid}`);
    const descriptors = new Map(links.map((link) => [link, openTap(link)]));
    try {
      const nics = links.map((_, index) => ({
        name: `nic${index}`,
        network: 'n',
        mac: `52:54:00:00:00:0${index}` as MacAddress,
      }));
      const launch = await harness.makeLaunch('idle', { nics });
      const taps = links.map((link, index) => ({
        kind: 'tap' as const,
        link,
        mac: `52:54:00:00:00:0${index}` as MacAddress,
      }));
      const handle = await start({ ...launch, nics: taps }, harness.driver(), descriptors);
      const infos = [7, 8].map((fd) => readFile(`/proc/${handle.process.pid}/fdinfo/${fd}`, 'utf8'));
      expect((await Promise.all(infos)).map((info) => /^iff:\t(.*)$/m.exec(info)?.[1])).toEqual(links);
    } finally {
      for (const descriptor of descriptors.values()) closeSync(descriptor);
    }
  });
});

describeWith(['qemu'], 'a real guest', () => {
  beforeEach(async () => {
    harness = await makeQemuHarness({ ownUid: false });
  });

  it.each(machineFamilies)('boots from its disk on %s', async (machine) => {
    const launch = await harness.makeLaunch('idle', { machine });
    const handle = await start(launch);
    await handle.resume(signal);
    await banner(launch);
    expect(await handle.queryState(signal)).toEqual({ state: 'running' });
  });

  it.each(machineFamilies)('takes many devices on %s, each where it was pinned', async (machine) => {
    const nics = Array.from({ length: 8 }, (_, index) => ({
      name: `nic${index}`,
      network: 'n',
      mac: `52:54:00:00:00:0${index}` as MacAddress,
    }));
    const disks: GuestSpec['disks'] = Array.from({ length: machine === 'microvm' ? 14 : 15 }, (_, index) => ({
      name: `disk${index}`,
      sizeBytes: 1024 ** 2,
      readOnly: index > 0,
    }));
    const launch = await harness.makeLaunch('idle', {
      machine,
      nics,
      disks,
      cpu: { count: 4, topology: { sockets: 2, cores: 2, threads: 1 }, model: 'max' },
    });
    // One writer of the file, and readers of copies: QEMU locks what it opens.
    const copies = await Promise.all(
      launch.disks.map(async (disk, index) => {
        if (index === 0) return disk;
        const path = `${disk.path}.${index}`;
        await writeFile(path, await readFile(disk.path));
        return { ...disk, path, readOnly: true };
      }),
    );
    const handle = await start({ ...launch, disks: copies });
    expect(await handle.queryState(signal)).toEqual({ state: 'starting' });
  });

  it('that goes silent is told of, classified, and heard again', async () => {
    const driver = harness.driver({ silenceAfterMs: 100 });
    const launch = await harness.makeLaunch('idle');
    const handle = await start(launch, driver);
    const { pid } = handle.process;
    process.kill(pid, 'SIGSTOP');
    try {
      await expect(handle.queryState(signal)).rejects.toMatchObject({
        class: 'Unavailable',
        data: { reason: 'stopped' },
      });
      expect(storyWithoutSlowness()).toEqual(['silent stopped']);
      await expect(handle.queryState(signal)).rejects.toMatchObject({ class: 'Unavailable' });
      const { unanswered } = await driver.readTranscript(launch.place, { limit: 1 });
      // Of a monitor that is known to be silent nothing more is asked.
      expect(unanswered.map(({ name }) => name)).toEqual(['query-status']);
      expect(unanswered[0]?.ageMs).toBeGreaterThanOrEqual(100);
      // A command waits as long as its caller does, and is done once the guest can.
      const resumed = handle.resume(signal);
      process.kill(pid, 'SIGCONT');
      await resumed;
      await witness.until('running');
      expect(storyWithoutSlowness()).toEqual(['silent stopped', 'heard', 'running']);
      expect(await handle.queryState(signal)).toEqual({ state: 'running' });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  });

  it('that is stopped cannot be taken over, but later it can, and it can always be killed', async () => {
    const driver = harness.driver({ silenceAfterMs: 100 });
    const launch = await harness.makeLaunch('idle');
    const handle = await start(launch, driver);
    await handle.release();
    const { pid } = handle.process;
    process.kill(pid, 'SIGSTOP');
    const attach = (): Promise<GuestHandle> =>
      harness
        .driver({ silenceAfterMs: 100 })
        .attach(launch.place, { signal, cursor: 0, observe: witness.observe });
    await expect(attach()).rejects.toMatchObject({ class: 'Unavailable', data: { reason: 'stopped' } });
    expect(storyWithoutSlowness()).toEqual(['silent stopped']);
    expect(await driver.probe(launch.place)).toBe('alive');
    process.kill(pid, 'SIGCONT');
    const again = await harness
      .driver()
      .attach(launch.place, { signal, cursor: 0, observe: witness.observe });
    living.push(again);
    expect(again.process).toEqual(handle.process);
    process.kill(pid, 'SIGSTOP');
    await again.kill(signal);
    expect((await again.ended).cause).toBe('asked');
  });

  it.each([
    ['SIGTERM', 'killed', 'terminating on signal 15'],
    ['SIGSEGV', 'crashed', 'SIGSEGV'],
    ['SIGKILL', 'killed', 'SIGKILL'],
  ] as const)('ended by %s counts as %s', async (name, cause, detail) => {
    const launch = await harness.makeLaunch('idle');
    const handle = await start(launch);
    process.kill(handle.process.pid, name);
    expect(await handle.ended).toMatchObject({ cause, detail: expect.stringMatching(detail) });
  });

  it('whose disk is gone fails with the words of QEMU and leaves nothing', async () => {
    const launch = await harness.makeLaunch('idle');
    await rm(launch.disks[0]?.path ?? '');
    await expect(start(launch)).rejects.toMatchObject({
      class: 'HostError',
      message: expect.stringContaining('No such file or directory'),
    });
    expect(await harness.driver().inspect(harness)).toEqual([]);
  });

  it('with a device that QEMU cannot make fails the same', async () => {
    const launch = await harness.makeLaunch('idle');
    const machine = {
      ...launch.machine,
      disks: launch.machine.disks.map((disk) => ({ ...disk, address: 'port99' })),
    };
    await expect(start({ ...launch, machine })).rejects.toMatchObject({
      class: 'HostError',
      message: expect.stringContaining("Bus 'port99' not found"),
    });
    expect(await harness.driver().inspect(harness)).toEqual([]);
  });

  it('whose launch is given up in the middle leaves no process', async () => {
    const launch = await harness.makeLaunch('idle');
    const given = new AbortController();
    const driver = harness.driver();
    const launching = driver.launch(launch, {
      signal: given.signal,
      descriptors: new Map(),
      observe: witness.observe,
    });
    // The lock is held from the moment there is something to undo.
    const lockTaken = deferred<void>();
    const look = async (): Promise<void> => {
      if ((await driver.probe(launch.place)) === 'alive') lockTaken.resolve();
      else setImmediate(() => void look());
    };
    void look();
    await lockTaken.promise;
    given.abort(new Error('changed my mind'));
    await expect(launching).rejects.toThrow('changed my mind');
    expect(await driver.probe(launch.place)).toBe('gone');
    expect(await driver.inspect(harness)).toEqual([]);
  });

  it('that resets itself tells of each reset once, in order, over changes of the daemon', async () => {
    const launch = await harness.makeLaunch('reset');
    const first = await start(launch);
    await first.resume(signal);
    await witness.until('RESET by the guest', 2);
    await first.release();
    const again = await harness
      .driver()
      .attach(launch.place, { signal, cursor: witness.cursor, observe: witness.observe });
    living.push(again);
    await witness.until('RESET by the guest', 4);
    await again.kill(signal);
    await again.ended;
    const whole = new Witness();
    await harness.driver().autopsy(launch.place, { signal, cursor: 0, observe: whole.observe });
    expect(whole.seen).toEqual(witness.seen);
  });
});

describeWith(['qemu'], 'the driver', () => {
  beforeEach(async () => {
    harness = await makeQemuHarness({ ownUid: false });
  });

  it('describes its binaries, and says what is wrong with those that do not work', async () => {
    const driver = harness.driver({
      binaries: { default: '/usr/bin/qemu-system-x86_64', other: '/bin/false', none: '/nonexistent/qemu' },
    });
    const [good, mute, missing] = await driver.describeBinaries(signal);
    expect(good?.version).toMatch(/^\d+\.\d+\.\d+$/);
    const q35 = good?.machines.filter((machine) => machine.startsWith('pc-q35-')) ?? [];
    const pinned = await driver.pin(harness.spec(), anyId, signal);
    expect(q35[0]).toBe(pinned.type);
    expect(good?.machines).toContain('microvm');
    expect(mute).toMatchObject({ machines: [], problem: expect.stringContaining('does not answer') });
    expect(missing).toMatchObject({ machines: [], problem: expect.stringContaining('is not there') });
  });

  it('asks a binary once, also when many want to know, and again when it has changed', async () => {
    const folder = join(harness.stateRoot, 'bin');
    const path = join(folder, 'qemu-system-x86_64');
    const count = join(folder, 'count');
    await mkdir(folder);
    const script = `#!/bin/sh\necho . >> ${count}\nexec /usr/bin/qemu-system-x86_64 "$@"\n`;
    await writeFile(path, script, { mode: 0o755 });
    const stored = new Map<string, unknown>();
    const cache = {
      get: (key: string) => stored.get(key),
      set: (key: string, facts: unknown) => void stored.set(key, JSON.parse(JSON.stringify(facts))),
    };
    const make = () => harness.driver({ binaries: { default: path }, cache });
    const driver = make();
    await Promise.all([1, 2, 3].map(() => driver.pin(harness.spec(), anyId, signal)));
    await make().pin(harness.spec(), anyId, signal);
    expect(await readFile(count, 'utf8')).toBe('.\n');
    await writeFile(path, `${script}# newer\n`);
    await make().pin(harness.spec(), anyId, signal);
    expect(await readFile(count, 'utf8')).toBe('.\n.\n');
  });

  it.each<[string, Partial<GuestSpec>, string]>([
    ['a binary', { qemu: { binary: 'newest', accel: 'tcg', extraArgs: [] } }, 'Unsupported'],
    ['a machine', { machine: 'pc-q35-99.9' }, 'Unsupported'],
    ['another sort of machine', { machine: 'isapc' }, 'Unsupported'],
    ['a CPU model', { cpu: { count: 1, model: 'abacus,+beads' } }, 'Unsupported'],
    ['a CPU model of KVM without KVM', { cpu: { count: 1, model: 'host' } }, 'Unsupported'],
    ['CPUs', { machine: 'pc', cpu: { count: 512, model: 'max' } }, 'Unsupported'],
  ])('refuses %s that it does not have', async (_what, changes, expected) => {
    const pinned = harness.driver().pin(harness.spec(changes), anyId, signal);
    await expect(pinned).rejects.toMatchObject({ class: expected, hint: expect.any(String) });
  });

  it('moves a guest to a newer machine only when asked, and never to another kind', async () => {
    const driver = harness.driver();
    const old = await driver.pin(harness.spec({ machine: 'pc-q35-6.2' }), anyId, signal);
    expect(old.type).toBe('pc-q35-6.2');
    expect((await driver.repin(harness.spec({ machine: 'q35' }), old, signal)).type).toBe('pc-q35-6.2');
    expect((await driver.repin(harness.spec({ machine: 'pc-q35-7.2' }), old, signal)).type).toBe(
      'pc-q35-7.2',
    );
    const other = driver.repin(harness.spec({ machine: 'pc' }), old, signal);
    await expect(other).rejects.toMatchObject({ class: 'InvalidArgument' });
  });

  it('says what auto takes, and why', async () => {
    const { auto, why } = await harness.driver().describeAccelerator();
    expect(['kvm', 'tcg']).toContain(auto);
    expect(why).not.toBe('');
  });
});

const flags = await readFile('/proc/cpuinfo', 'latin1').then((text) => /^flags.*$/m.exec(text)?.[0] ?? '');
const noKvm = / (vmx|svm)( |$)/.test(flags) ? undefined : 'the processor shows neither vmx nor svm';

describeWith(['qemu', 'kvm'], `a guest under KVM${noKvm === undefined ? '' : ` (skipped: ${noKvm})`}`, () => {
  describe.skipIf(noKvm !== undefined)('on this host', () => {
    it('runs on what it says', async () => {
      harness = await makeQemuHarness({ ownUid: false });
      const launch = await harness.makeLaunch('acpi', {
        qemu: { binary: 'default', accel: 'kvm', extraArgs: [] },
      });
      const handle = await start(launch);
      expect(handle.accel).toBe('kvm');
      await handle.resume(signal);
      await banner(launch);
    });
  });
});

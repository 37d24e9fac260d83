/** The init in real guests: what only a kernel of its own shows. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeFrame } from '../../drivers/roost-agent/frames.ts';
import { MicrovmAgent } from '../../drivers/roost-agent/microvm-agent.ts';
import { exec } from '../../lib/exec.ts';
import { guestImagesTimeoutMs } from '../guests/guest-images.ts';
import {
  connectToMicrovm,
  type MicrovmParts,
  makeMicrovmParts,
  microvmSockets,
  startMicrovm,
} from '../guests/microvm.ts';
import type { RawQemu } from '../guests/raw-qemu.ts';
import { makeDirectory } from '../harness/test-directory.ts';
import { nextLine, run, textOf } from './native-agent.ts';

const MEBIBYTE = 1024 * 1024;
const never = new AbortController().signal;

let folder: string;
let parts: MicrovmParts;

beforeAll(async () => {
  folder = await makeDirectory('microvm');
  parts = await makeMicrovmParts(folder);
}, guestImagesTimeoutMs);
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const guestFolder = async (name: string): Promise<string> => {
  const directory = join(folder, name);
  await mkdir(directory);
  return directory;
};

describe.each(['microvm', 'q35'] as const)('a guest on %s', (machine) => {
  let directory: string;
  let qemu: RawQemu;
  let agent: MicrovmAgent;

  beforeAll(async () => {
    directory = await guestFolder(machine);
    const upper = join(directory, 'upper.img');
    await exec(['mke2fs', '-q', '-t', 'ext4', upper, '48M'], { signal: never });
    // Those that have no disk to write to write to memory: the guests below.
    qemu = await startMicrovm({ machine, directory, parts, upper, settings: 'roost.upper=serial:upper' });
    agent = await connectToMicrovm(qemu, directory);
  }, 120_000);
  afterAll(async () => {
    agent?.close();
    await qemu?.dispose();
  });

  it('is up, on the image with what is written above it', async () => {
    expect(agent.facts).toMatchObject({ agent: 'roost-init 1', failure: undefined });
    const { stdout } = await run(agent, ['sh', '-c', 'echo $$; touch /written; ls /; cat /proc/1/comm']);
    expect(stdout.split('\n')).toEqual(
      expect.arrayContaining(['bin', 'etc', 'proc', 'srv', 'tmp', 'written', 'init']),
    );
    const mounts = (await run(agent, ['cat', '/proc/mounts'])).stdout;
    expect(mounts).toMatch(/^overlay \/ overlay rw/m);
    for (const place of ['/proc', '/sys', '/dev', '/dev/pts', '/dev/shm', '/run', '/sys/fs/cgroup']) {
      expect(mounts).toContain(` ${place} `);
    }
  });

  it('mounts a disk by its serial number, once for all times under what is written over it', async () => {
    const mount = (options: string, source = 'serial:root', target = '/over/it'): Promise<void> =>
      agent.mount({ source, target, fstype: 'overlay', flags: 0, options }, never);
    await mount('over');
    await run(agent, ['sh', '-c', 'echo mine > /over/it/new']);
    await mount('over');
    const look =
      'cat /over/it/new; ls -d /over/it/bin; grep -c " /over/it " /proc/mounts; ls / | grep -c new';
    expect((await run(agent, ['sh', '-c', look])).stdout).toBe('mine\n/over/it/bin\n2\n0\n');
    for (const name of ['', '.', '..', 'a/b', 'a,b', 'a:b', 'x'.repeat(65)])
      await expect(mount(name, 'serial:root', '/other')).rejects.toThrow('needs a name of its own');
    await agent.mount({ source: 'serial:root', target: '/lower', fstype: 'squashfs', flags: 1 }, never);
    expect((await run(agent, ['sh', '-c', 'touch /lower/new'])).stderr).toContain('Read-only file system');
  });

  it('runs programs with streams, exit codes, signals and users of their own', async () => {
    expect(await run(agent, ['sh', '-c', 'echo out; echo err >&2; cat; exit 7'], { input: 'in' })).toEqual({
      stdout: 'out\nin',
      stderr: 'err\n',
      exitCode: 7,
      signal: undefined,
    });
    expect(await run(agent, ['sh', '-c', 'kill -TERM $$'])).toMatchObject({ signal: 15 });
    const { stdout } = await run(agent, ['sh', '-c', 'id; echo $HOME'], { user: 'web' });
    expect(stdout).toBe(
      'uid=101(web) gid=102(web) groups=102(web),200(logs)\n/srv\n'.replace('102(web),', ''),
    );
  });

  it('has terminals', async () => {
    const program = await agent.exec(
      {
        process: 5000,
        argv: ['sh', '-c', 'stty size; read line; stty size; tty'],
        terminal: { rows: 24, columns: 80 },
        stdin: true,
        stdout: true,
      },
      never,
    );
    const first = await nextLine(program.stdout);
    expect(first).toBe('24 80\r\n');
    await program.resize({ rows: 50, columns: 132 }, never);
    program.stdin?.write('\n');
    expect(await textOf(program.stdout)).toBe('\r\n50 132\r\n/dev/pts/0\r\n');
    await program.wait(never);
    await program.release(never);
  });

  it('takes files and gives them', async () => {
    const content = randomBytes(MEBIBYTE);
    const options = { mode: 0o4750, uid: 101, gid: 102, sizeBytes: content.length };
    await agent.writeFile('/srv/file', Readable.from([content]), options, never);
    expect(await agent.stat('/srv/file', never)).toMatchObject({ mode: 0o104750, uid: 101, gid: 102 });
    const hash = createHash('sha256').update(content).digest('hex');
    expect((await run(agent, ['sha256sum', '/srv/file'])).stdout).toBe(`${hash}  /srv/file\n`);
    const read = createHash('sha256');
    for await (const chunk of (await agent.readFile('/srv/file', never)).content)
      read.update(chunk as Buffer);
    expect(read.digest('hex')).toBe(hash);
  });

  it('gives what a program writes whole and in order', async () => {
    const expected = await exec(['sh', '-c', 'seq 1 200000 | sha256sum'], { signal: never });
    const program = await agent.exec({ process: 5001, argv: ['seq', '1', '200000'], stdout: true }, never);
    const hash = createHash('sha256');
    for await (const chunk of program.stdout ?? []) hash.update(chunk as Buffer);
    expect(`${hash.digest('hex')}  -\n`).toBe(expected.stdout);
    await program.wait(never);
    await program.release(never);
  });

  it('answers while a program floods a stream that nobody reads', async () => {
    const program = await agent.exec({ process: 5002, argv: ['yes'], stdout: true }, never);
    program.stdout?.pause();
    for (let count = 0; count < 20; count += 1) await agent.ping(never);
    expect((await run(agent, ['echo', 'other'])).stdout).toBe('other\n');
    program.stdout?.destroy();
    expect(await program.wait(never)).toMatchObject({ signal: 13 });
    await program.release(never);
  });

  it('comes to its network', async () => {
    const server = createServer((_request, response) => response.end('from the host'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = server.address() as AddressInfo;
      await agent.setLink({ name: 'eth0' }, { newMac: '52:54:00:12:34:99' }, never);
      const settings = {
        up: true,
        addresses: ['10.0.2.15/24'],
        routes: [{ destination: '0.0.0.0/0', gateway: '10.0.2.2' }],
      };
      await agent.setLink({ mac: '52:54:00:12:34:99' }, settings, never);
      await agent.waitForLink({ name: 'eth0' }, 20_000, never);
      await agent.setResolver({ nameservers: ['10.0.2.3'] }, never);
      const argv = [
        'sh',
        '-c',
        `wget -q -O - http://10.0.2.2:${port}/; cat /sys/class/net/eth0/address`,
      ] as const;
      expect((await run(agent, argv)).stdout).toBe('from the host52:54:00:12:34:99\n');
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });

  it('has the clock and the name it is given', async () => {
    const time = 2_000_000_000_000_000_000n;
    await agent.setClock(time, never);
    const { timeNs } = await agent.inspect(never);
    expect(timeNs).toBeGreaterThanOrEqual(time);
    expect(Number((await run(agent, ['date', '+%s'])).stdout)).toBeGreaterThanOrEqual(2_000_000_000);
    await agent.setIdentity({ hostname: 'renamed', machineId: 'ab'.repeat(16) }, never);
    expect((await run(agent, ['sh', '-c', 'hostname; cat /etc/machine-id'])).stdout).toBe(
      `renamed\n${'ab'.repeat(16)}\n`,
    );
  });

  it('comes to its clock before it is settled', async () => {
    await agent.settle(never);
    const clock = '/sys/devices/system/clocksource/clocksource0/current_clocksource';
    expect((await run(agent, ['cat', clock])).stdout).toBe('tsc\n');
  });

  it('holds a program to its limits', async () => {
    const cgroup = ['memory.max=16777216', 'pids.max=20', 'cpu.max=50000 100000'];
    const show = 'cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && cat memory.max pids.max cpu.max';
    expect((await run(agent, ['sh', '-c', show], { cgroup })).stdout).toBe('16777216\n20\n50000 100000\n');
    const greedy = await run(agent, ['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=64M', 'count=1'], { cgroup });
    expect(greedy).toMatchObject({ signal: 9 });
  });

  it('is there again for a host that comes back after half a frame', async () => {
    const argv = ['sh', '-c', 'read line; echo "got $line"'] as const;
    await agent.exec({ process: 5003, argv, stdin: true, stdout: true }, never);
    agent.close();
    const half = Buffer.concat(encodeFrame({ type: 'ping', id: 1, session: 7n }, Buffer.alloc(30_000)));
    for (const path of Object.values(microvmSockets(directory))) {
      const line = connect({ path });
      await new Promise<void>((resolve) => {
        line.write(half.subarray(0, 20_000), () => line.end(resolve));
      });
      line.destroy();
    }
    agent = await MicrovmAgent.connect(microvmSockets(directory), never);
    const program = await agent.attach({ process: 5003, stdin: true, stdout: true }, never);
    program.stdin?.end('it\n');
    expect(await textOf(program.stdout)).toBe('got it\n');
    await program.wait(never);
    await program.release(never);
  });

  it('freezes its disk, answers meanwhile, and thaws, at the latest by itself', async () => {
    expect(await agent.freeze(60_000, never)).toBe(1);
    await expect(agent.freeze(60_000, never)).rejects.toMatchObject({ data: { errno: 'EBUSY' } });
    const argv = ['sh', '-c', 'echo begin; echo x > /frozen; echo end'] as const;
    const program = await agent.exec({ process: 5004, argv, stdout: true }, never);
    const begun = await nextLine(program.stdout);
    expect(begun).toBe('begin\n');
    expect(await agent.inspect(never)).toMatchObject({ frozen: true });
    expect((await agent.processes(never))[0]?.end).toBeUndefined();
    expect(await agent.thaw(never)).toBe(1);
    expect(await textOf(program.stdout)).toBe('end\n');
    await program.wait(never);
    await program.release(never);
    expect(await agent.freeze(1, never)).toBe(1);
    // Blocked until the agent has thawed the disk without being asked.
    expect((await run(agent, ['sh', '-c', 'echo y > /frozen; cat /frozen'])).stdout).toBe('y\n');
    expect(await agent.inspect(never)).toMatchObject({ frozen: false });
  });

  it('goes off when it is told to, with its programs', async () => {
    await agent.exec({ process: 5005, argv: ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done'] }, never);
    await agent.sync(never);
    await agent.power('off', 100, never);
    expect((await qemu.waitForEvent('SHUTDOWN')).data).toEqual({ guest: true, reason: 'guest-shutdown' });
    expect(await qemu.ended).toMatchObject({ exitCode: 0 });
  });
});

describe('a guest', () => {
  it('resets when it is told to', async () => {
    const directory = await guestFolder('reset');
    const qemu = await startMicrovm({ machine: 'microvm', directory, parts });
    try {
      const agent = await connectToMicrovm(qemu, directory);
      await agent.power('reset', 100, never);
      expect((await qemu.waitForEvent('SHUTDOWN')).data).toEqual({ guest: true, reason: 'guest-reset' });
      agent.close();
    } finally {
      await qemu.dispose();
    }
  });

  it('that has no root says why, runs nothing, and can be switched off', async () => {
    const directory = await guestFolder('no-root');
    const settings = 'roost.root.type=erofs';
    const qemu = await startMicrovm({ machine: 'microvm', directory, parts, settings });
    try {
      const agent = await connectToMicrovm(qemu, directory);
      expect(agent.facts.failure).toMatch(/^mount \/dev\/vda at \/lower: /);
      await expect(run(agent, ['sh'])).rejects.toMatchObject({ data: { errno: 'ENXIO' } });
      await agent.power('off', 100, never);
      expect(await qemu.ended).toMatchObject({ exitCode: 0 });
      agent.close();
    } finally {
      await qemu.dispose();
    }
  });

  it('that is a fork draws the numbers of its template until it is seeded', {
    timeout: 240_000,
  }, async () => {
    const draws = ['head', '-c', '16', '/dev/urandom'] as const;
    const memory = join(folder, 'memory');
    const state = join(folder, 'state');
    const capabilities = { capabilities: [{ capability: 'x-ignore-shared', state: true }] };
    const templateFolder = await guestFolder('template');
    const template = await startMicrovm({
      machine: 'microvm',
      directory: templateFolder,
      parts,
      memory: { path: memory, share: 'on' },
    });
    try {
      const agent = await connectToMicrovm(template, templateFolder);
      await agent.seed(randomBytes(64), never);
      await agent.setIdentity({ token: Buffer.from('template') }, never);
      await run(agent, draws);
      agent.close();
      template.execute('stop');
      template.execute('migrate-set-capabilities', {
        capabilities: [...capabilities.capabilities, { capability: 'events', state: true }],
      });
      template.execute('migrate', { uri: `exec:cat > ${state}` });
      let status: unknown;
      while (status !== 'completed') status = (await template.waitForEvent('MIGRATION')).data?.['status'];
      template.execute('quit');
      await template.ended;
    } finally {
      await template.dispose();
    }

    const fork = async (name: string, seed: Buffer | undefined): Promise<string> => {
      const directory = await guestFolder(name);
      const qemu = await startMicrovm({
        machine: 'microvm',
        directory,
        parts,
        memory: { path: memory, share: 'off' },
        extra: ['-incoming', 'defer'],
      });
      try {
        qemu.execute('migrate-set-capabilities', {
          capabilities: [...capabilities.capabilities, { capability: 'events', state: true }],
        });
        qemu.execute('migrate-incoming', { uri: `exec:cat ${state}` });
        let status: unknown;
        while (status !== 'completed') status = (await qemu.waitForEvent('MIGRATION')).data?.['status'];
        qemu.execute('cont');
        const agent = await MicrovmAgent.connect(microvmSockets(directory), never);
        expect(agent.facts.token).toEqual(Buffer.from('template'));
        if (seed) await agent.seed(seed, never);
        const program = await agent.exec({ process: 9000, argv: draws, stdout: true }, never);
        const chunks: Buffer[] = [];
        for await (const chunk of program.stdout ?? []) chunks.push(chunk as Buffer);
        agent.close();
        return Buffer.concat(chunks).toString('hex');
      } finally {
        await qemu.dispose();
      }
    };
    // One after another: the memory is one file, which each child has for itself.
    const drawn = [
      await fork('child-1', undefined),
      await fork('child-2', undefined),
      await fork('child-3', randomBytes(64)),
      await fork('child-4', randomBytes(64)),
    ];
    expect(drawn.every((bytes) => bytes.length === 32)).toBe(true);
    expect(drawn[0]).toBe(drawn[1]);
    expect(new Set(drawn).size).toBe(3);
  });
});

/**
 * A libvirtd of the bench's own, as the peer: Debian's, with its directories replaced for the time of the bench. It runs
 * only in the bench's own mount and process namespaces, so that it meets no libvirt of the host, and ends with them.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { LibvirtClient } from './client.ts';

const PACKAGES = [
  'libvirt-daemon',
  'libvirt-daemon-driver-qemu',
  'libvirt-daemon-system',
  'libvirt-clients',
  'tini',
] as const;
const PROGRAMS = ['/usr/sbin/libvirtd', '/usr/bin/virsh', '/usr/bin/tini'] as const;

/** Installs what is missing; the bench does so outside of its namespaces. */
export const prepareLibvirt = async (signal: AbortSignal): Promise<void> => {
  if (PROGRAMS.every((path) => existsSync(path))) return;
  const options = { cancelSignal: signal, env: { DEBIAN_FRONTEND: 'noninteractive' } } as const;
  await execa('apt-get', ['update', '-qq'], options);
  await execa('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...PACKAGES], options);
};

export interface Libvirtd {
  readonly socketPath: string;
  readonly pid: number;
  /** Resident memory in bytes. */
  memoryBytes(): Promise<number>;
  /** Ends it and starts it anew; its domains run on. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

const configuration = (runDirectory: string): string =>
  [
    `unix_sock_dir = "${runDirectory}"`,
    'auth_unix_ro = "none"',
    'auth_unix_rw = "none"',
    'max_clients = 200',
    'max_client_requests = 100',
    '',
  ].join('\n');

/** Domains log to files, run as root and without a label: there is neither virtlogd nor a security module here. */
const qemuConfiguration = [
  'stdio_handler = "file"',
  'security_driver = "none"',
  'user = "root"',
  'group = "root"',
  'namespaces = [ ]',
  'cgroup_controllers = [ ]',
  '',
].join('\n');

/** Replaced by empty ones for as long as the mount namespace lasts. */
const EMPTIED = ['/etc/libvirt/qemu', '/var/lib/libvirt', '/var/log/libvirt', '/var/cache/libvirt', '/run'];

const replaceDirectories = async (scratch: string): Promise<void> => {
  const qemuConf = join(scratch, 'qemu.conf');
  await writeFile(qemuConf, qemuConfiguration);
  await execa('mount', ['--bind', qemuConf, '/etc/libvirt/qemu.conf']);
  for (const path of EMPTIED) await execa('mount', ['-t', 'tmpfs', 'tmpfs', path]);
};

const putDirectoriesBack = async (): Promise<void> => {
  await execa('umount', ['--lazy', ...EMPTIED.toReversed(), '/etc/libvirt/qemu.conf']);
};

/** How often it is tried whether it listens, of which it tells nobody. */
const TRY_MS = 2;

const listens = async (path: string): Promise<boolean> => {
  try {
    (await LibvirtClient.open(path)).close();
    return true;
  } catch {
    return false;
  }
};

/** Resolves when a client is served; rejects when the daemon has ended. */
const untilServing = async (path: string, ended: Promise<unknown>): Promise<void> => {
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  while (!(await listens(path))) {
    if (isOver) throw new Error('libvirtd ended at once');
    await delay(TRY_MS);
  }
};

const childOf = async (pid: number): Promise<number> => {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return Number(children.trim().split(' ')[0]);
};

export const startLibvirtd = async (scratch: string): Promise<Libvirtd> => {
  await replaceDirectories(scratch);
  const runDirectory = join(scratch, 'libvirt');
  await mkdir(runDirectory);
  const configPath = join(scratch, 'libvirtd.conf');
  await writeFile(configPath, configuration(runDirectory));
  const socketPath = join(runDirectory, 'libvirt-sock');
  const launch = async (): Promise<{ pid: number; end(): Promise<void> }> => {
    // Its look at QEMU waits for the end of a process that nobody else reaps: tini does.
    const tini = spawn(
      '/usr/bin/tini',
      ['-s', '--', '/usr/sbin/libvirtd', '-f', configPath, '-p', join(scratch, 'pid'), '-t', '0'],
      { stdio: 'ignore', cwd: '/' },
    );
    const ended = once(tini, 'exit');
    await untilServing(socketPath, ended);
    const pid = await childOf(tini.pid ?? 0);
    return {
      pid,
      end: async () => {
        process.kill(pid, 'SIGTERM');
        await ended;
      },
    };
  };
  let running = await launch();
  return {
    socketPath,
    get pid() {
      return running.pid;
    },
    memoryBytes: async () => {
      const status = await readFile(`/proc/${running.pid}/status`, 'utf8');
      return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? Number.NaN) * 1024;
    },
    restart: async () => {
      await running.end();
      running = await launch();
    },
    close: async () => {
      await running.end();
      await putDirectoriesBack();
    },
  };
};

/** A domain of the same parts as a guest of the bench without disk and NIC. */
export const domainXml = (
  name: string,
  { memoryBytes, kernel, machine }: { memoryBytes: number; kernel: string; machine: string },
): string =>
  `<domain type='qemu'><name>${name}</name><memory unit='b'>${memoryBytes}</memory><vcpu>1</vcpu>` +
  `<os><type arch='x86_64' machine='${machine}'>hvm</type><kernel>${kernel}</kernel></os>` +
  `<features><acpi/></features><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>` +
  `<serial type='file'><source path='/dev/null'/></serial><controller type='usb' model='none'/>` +
  `<memballoon model='none'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>` +
  `</devices></domain>`;

/** Debian's dockerd and podman as peers, with their files in the bench's own directory and in its own namespaces. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';

const PACKAGES = ['docker.io', 'podman', 'runc', 'iptables'] as const;
const PROGRAMS = ['/usr/sbin/dockerd', '/usr/bin/podman', '/usr/sbin/runc'] as const;

/** Installs what is missing; the bench does so outside of its namespaces. */
export const prepareContainers = async (signal: AbortSignal): Promise<void> => {
  if (PROGRAMS.every((path) => existsSync(path))) return;
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const options = { cancelSignal: signal, env } as const;
  await execa('apt-get', ['update', '-qq'], options);
  await execa('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...PACKAGES], options);
};

export interface Containers {
  /** How each is called, up to its command. */
  readonly docker: readonly string[];
  readonly podman: readonly string[];
  readonly dockerSocket: string;
  close(): Promise<void>;
}

const TRY_MS = 20;

const listens = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('close', () => socket.destroy());
    socket.once('connect', () => socket.destroy());
  });

/** `archive`: a tar of the root file system, which both know as `box`. */
export const startContainers = async (scratch: string, archive: string): Promise<Containers> => {
  const at = (name: string): string => join(scratch, name);
  for (const name of ['docker', 'docker-run', 'podman', 'podman-run']) await mkdir(at(name));
  const socket = at('docker.sock');
  const places = [
    '--data-root',
    at('docker'),
    '--exec-root',
    at('docker-run'),
    '--pidfile',
    at('docker.pid'),
  ];
  const daemon = spawn('/usr/sbin/dockerd', ['--host', `unix://${socket}`, ...places], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  });
  let said = '';
  daemon.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-2_000);
  });
  const ended = once(daemon, 'exit');
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  while (!(await listens(socket))) {
    if (isOver) throw new Error(`dockerd ended at once: ${said}`);
    await delay(TRY_MS);
  }
  const docker = ['docker', '--host', `unix://${socket}`];
  const podmanPlaces = ['--root', at('podman'), '--runroot', at('podman-run'), '--tmpdir', at('podman-run')];
  const podmanWays = ['--runtime', 'runc', '--cgroup-manager', 'cgroupfs', '--events-backend', 'file'];
  const podman = ['podman', ...podmanPlaces, ...podmanWays];
  for (const [program = '', ...args] of [docker, podman])
    await execa(program, [...args, 'import', archive, 'box']);
  return {
    docker,
    podman,
    dockerSocket: socket,
    close: async () => {
      daemon.kill('SIGTERM');
      await ended;
    },
  };
};

/**
 * A warden under the sanitizers, begun as a driver begins it: with a lock, sockets and logs as its descriptors, in a
 * directory of its own. Needs root.
 */
import { chmodSync, closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { parseBlackBox } from '../../drivers/processes/qmp/black-box.ts';
import { QmpClient } from '../../drivers/processes/qmp/qmp-client.ts';
import type { QmpEvent } from '../../drivers/processes/qmp/qmp-types.ts';
import { type Child, type ExitStatus, spawnChild } from '../../lib/child.ts';
import { connectUnixSocket } from '../../lib/connect-unix-socket.ts';
import { exec } from '../../lib/exec.ts';
import { listenUnix, lockFile } from '../../native/index.ts';
import { buildSanitizedInit, buildSanitizedWarden } from '../../tools/build-native.mjs';
import { makeDirectory } from '../harness/test-directory.ts';
import { trackInstance, worker } from '../harness/worker.ts';

export const FIRST_ID = 1_073_741_824;
const ID_COUNT = 65_536;
const stub = join(import.meta.dirname, 'stub');

export interface WardenOptions {
  /** Program and arguments of the init. */
  readonly init?: readonly string[];
  /** liblxc's own programs instead of the stand-ins. */
  readonly real?: boolean;
  /** What is below; an empty directory unless given. */
  readonly lower?: string;
  readonly image?: string;
  /** Instead of one of its own. */
  readonly upper?: string;
  readonly agent?: boolean;
  /** Lines of the configuration behind those that every container has. */
  readonly config?: string;
  readonly more?: readonly string[];
  /** A directory whose files are seen in /usr/bin, with `up` and `work` as an overlay has them. */
  readonly programs?: string;
}

/** Becomes the warden, which sees other programs than the host. */
const withPrograms = (directory: string): readonly string[] => [
  ...'/usr/bin/unshare --mount --propagation private /bin/sh -c'.split(' '),
  `mount -t overlay -o "lowerdir=/usr/bin,upperdir=$0/up,workdir=$0/work" overlay /usr/bin && exec "$@"`,
  directory,
];

/** Names the init of a real container, which has nothing but busybox. */
export const shell = (script: string): readonly string[] => ['/bin/busybox', 'sh', '-c', script];

export class WardenProcess implements AsyncDisposable {
  readonly directory: string;
  readonly name: string;
  readonly #child: Child;
  #client: QmpClient | undefined;
  readonly #sockets: Socket[] = [];
  readonly #waiting = new Set<() => void>();
  readonly #events: QmpEvent[] = [];

  private constructor(directory: string, name: string, child: Child) {
    this.directory = directory;
    this.name = name;
    this.#child = child;
  }

  static async start(options: WardenOptions = {}): Promise<WardenProcess> {
    const directory = await makeDirectory('w');
    // The worker's name in it is what the leak check looks for.
    const name = `w${worker().id}-${directory.slice(-6)}`;
    trackInstance(name);
    for (const part of ['run', 'up', 'up/upper', 'up/work', 'lower', `guests`, `guests/${name}`])
      mkdirSync(join(directory, part));
    chmodSync(join(directory, 'up'), 0o700);
    writeFileSync(join(directory, 'guests', name, 'config'), configuration(name, options.config));
    return await WardenProcess.#spawn(directory, name, options);
  }

  /** Another one for the same container, when this one has ended. */
  async again(options: WardenOptions): Promise<WardenProcess> {
    return await WardenProcess.#spawn(this.directory, this.name, options);
  }

  static async #spawn(directory: string, name: string, options: WardenOptions): Promise<WardenProcess> {
    const log = (file: string): number => openSync(join(directory, file), 'a');
    const listen = (file: string): number =>
      listenUnix(join(directory, 'run', file), { mode: 0o600, backlog: 4 });
    const lock = lockFile(join(directory, 'lock'));
    if (lock === 'held') throw new Error('the lock is held');
    const descriptors = [
      openSync('/dev/null', 'r'),
      log('events.log'),
      log('process.log'),
      lock,
      listen('qmp.sock'),
      listen('console.sock'),
      log('console.log'),
      ...(options.agent === true ? [listen('control'), listen('streams')] : []),
    ];
    const argv = [
      ...(options.programs === undefined ? [] : withPrograms(options.programs)),
      buildSanitizedWarden(),
      ...argumentsOf(directory, name, options),
    ];
    const [program = ''] = argv;
    const env = ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', `ROOST_TEST_WORKER=${worker().id}`];
    const child = await spawnChild({ program, argv, env, cwd: '/', descriptors });
    for (const descriptor of descriptors) closeSync(descriptor);
    return new WardenProcess(directory, name, child);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get exit(): Promise<ExitStatus> {
    return this.#child.exit;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  read(name: string): Promise<string> {
    return readFile(this.path(name), 'utf8');
  }

  /** The session on the monitor, whose events `event` waits for. */
  async monitor(): Promise<QmpClient> {
    this.#client ??= await QmpClient.connect(this.path('run/qmp.sock'), {
      signal: AbortSignal.timeout(30_000),
      onEvent: (event) => {
        this.#events.push(event);
        for (const look of this.#waiting) look();
      },
      onViolation: ({ kind, value }) => {
        throw new Error(`${kind}: ${JSON.stringify(value)}`);
      },
    });
    return this.#client;
  }

  /** The next of its name that the monitor told and nobody has waited for. */
  async event(name: string): Promise<Readonly<Record<string, unknown>>> {
    return await new Promise((resolve, reject) => {
      const look = (): void => {
        const at = this.#events.findIndex(({ event }) => event === name);
        if (at === -1) return;
        this.#waiting.delete(look);
        resolve(this.#events.splice(at, 1)[0]?.data ?? {});
      };
      this.#waiting.add(look);
      look();
      void this.exit.then(() => {
        // What the monitor said last is read by then, or on its way.
        setImmediate(() => {
          if (this.#waiting.delete(look)) reject(new Error(`it ended without ${name}`));
        });
      });
    });
  }

  /** What the event log has, but for the times. */
  async told(): Promise<readonly (readonly [string, Readonly<Record<string, unknown>>])[]> {
    const { events, consumed } = parseBlackBox(await readFile(this.path('events.log')));
    if (consumed !== (await readFile(this.path('events.log'))).length) throw new Error('half an event');
    return events.map(({ event, data }) => [event, data]);
  }

  /** The groups of its container that are there, in any hierarchy; the deepest first. */
  async groups(): Promise<readonly string[]> {
    const argv = [
      '/usr/bin/find',
      '/sys/fs/cgroup',
      '-ignore_readdir_race',
      '-depth',
      '-type',
      'd',
      '-path',
      `*/roost-${this.name}*`,
    ] as const;
    const { stdout } = await exec(argv, { signal: AbortSignal.timeout(30_000) });
    return stdout.split('\n').filter(Boolean);
  }

  /** What whoever kills a warden does behind it (docs/warden.md). */
  async clear(): Promise<void> {
    const argv = [buildSanitizedWarden(), '--clear', '--cgroup', `roost-${this.name}`] as const;
    await exec(argv, { signal: AbortSignal.timeout(30_000) });
  }

  /** A line to a socket of it, without any session. */
  async line(name: string): Promise<Socket> {
    const socket = await connectUnixSocket(this.path(`run/${name}`), AbortSignal.timeout(30_000));
    // One that is cut off with something of ours unread says so, and closes.
    socket.on('error', () => undefined);
    this.#sockets.push(socket);
    return socket;
  }

  /** Ends what is left of it, and removes what it had. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#child.isReaped()) this.kill('SIGTERM');
    await this.exit;
    await this.#client?.close();
    for (const socket of this.#sockets) socket.destroy();
    // The next one of its container may have removed all of it.
    const words = await this.read('process.log').catch(() => '');
    await rm(this.directory, { recursive: true, force: true });
    if (/Sanitizer|runtime error/.test(words)) throw new Error(words);
  }
}

const configuration = (name: string, more = ''): string => `lxc.uts.name = ${name}
lxc.idmap = u 0 ${FIRST_ID} ${ID_COUNT}
lxc.idmap = g 0 ${FIRST_ID} ${ID_COUNT}
lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed
lxc.autodev = 1
lxc.pty.max = 1024
lxc.tty.max = 0
lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp
lxc.cgroup.dir.container = roost-${name}/payload
lxc.cgroup.dir.container.inner = guest
lxc.cgroup.dir.monitor = roost-${name}/monitor
lxc.cgroup.dir.monitor.pivot = roost-${name}/pivot
${more || 'lxc.net.0.type = empty'}
`;

const argumentsOf = (directory: string, name: string, options: WardenOptions): readonly string[] =>
  [
    ['--lxcpath', join(directory, 'guests'), '--name', name, '--run', join(directory, 'run')],
    options.image === undefined
      ? ['--lower', options.lower ?? join(directory, 'lower')]
      : ['--image', options.image],
    ['--upper', options.upper ?? join(directory, 'up'), '--ids', `${FIRST_ID}:${ID_COUNT}`],
    ['--cgroup', `roost-${name}`, '--lxc-log', join(directory, 'lxc.log')],
    options.agent === true ? ['--agent', agentProgram(options), '--agent-fds', '7:8'] : [],
    options.real === true ? [] : ['--programs', stub],
    options.more ?? [],
    options.init === undefined ? [] : ['--', ...options.init],
  ].flat();

/** A container has no libraries for the one under the sanitizers. */
const agentProgram = ({ real }: WardenOptions): string =>
  real === true ? join(import.meta.dirname, '../../build/guest/roost-init') : buildSanitizedInit();

/** A root file system of busybox and an init that ends when it is asked to; returns its path. */
export const busyboxRoot = async (): Promise<string> => {
  const directory = await makeDirectory('root');
  for (const part of ['bin', 'sbin', 'dev', 'proc', 'sys', 'tmp', 'etc', 'run', 'root'])
    await mkdir(join(directory, part));
  const signal = AbortSignal.timeout(30_000);
  await exec(['/bin/cp', '/usr/bin/busybox', join(directory, 'bin/busybox')], { signal });
  for (const name of ['sh', 'sleep', 'cat', 'ls', 'touch', 'chown'])
    await exec(['/bin/ln', '-s', 'busybox', join(directory, 'bin', name)], { signal });
  await writeFile(join(directory, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(
    join(directory, 'sbin/init'),
    '#!/bin/sh\ntrap "echo asked; exit 0" PWR\necho up\nwhile :; do sleep 1000 & wait; done\n',
    { mode: 0o755 },
  );
  return directory;
};

/** What comes, up to this and what came in one piece with it; in Latin 1. */
export const received = async (socket: Socket, until: string): Promise<string> =>
  await new Promise((resolve, reject) => {
    let text = '';
    const look = (chunk: Buffer): void => {
      text += chunk.toString('latin1');
      if (!text.includes(until)) return;
      socket.off('data', look);
      socket.off('close', over);
      resolve(text);
    };
    const over = (): void => reject(new Error(`the line ended behind: ${text.slice(-200)}`));
    socket.on('data', look);
    socket.once('close', over);
  });

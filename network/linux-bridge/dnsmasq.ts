/**
 * The DHCP and DNS server of a network: one dnsmasq a bridge. It outlives the daemon, as guests do.
 *
 * Rules it keeps:
 * - The server holds a lock on its own log for as long as it lives: it inherits the locked descriptor as its standard
 *   error, and keeps it. So whether it lives is asked of the kernel, and a pid is never trusted.
 * - It is signalled through a pidfd, after its command line was seen to be ours.
 */
import { closeSync, existsSync, ftruncateSync, watch } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import type { Child } from '../../lib/child.ts';
import type { ControlGroups } from '../../lib/control-groups.ts';
import { emptyInput, spawnProgram } from '../../lib/spawn-program.ts';
import { lockFile, openPidfd, signalPidfd, watchReadable } from '../../native/index.ts';
import { RoostError } from '../../protocol/errors.ts';
import { dnsmasqArgs, pidFileArgument } from './dnsmasq-args.ts';
import { missingTool, toolFailed } from './host-tool.ts';
import { type Site, serverGroup } from './site.ts';

export interface ServerHost {
  /** Found by PATH, or a path. */
  readonly program: string;
  readonly scopes: ControlGroups;
}

/** Whether the server that writes this log lives. */
export function serverLives(serverLog: string): boolean {
  if (!existsSync(serverLog)) return false;
  const lock = lockFile(serverLog);
  if (lock === 'held') return true;
  closeSync(lock);
  return false;
}

/**
 * Starts the server unless it runs; restarts one that was started with other arguments. When it returns, the server's
 * sockets are open.
 */
export async function ensureServer(
  site: Site,
  { program, scopes }: ServerHost,
  signal: AbortSignal,
): Promise<void> {
  const args = dnsmasqArgs(site, await serverUser());
  await mkdir(site.stateDirectory, { recursive: true, mode: 0o700 });
  await mkdir(site.runDirectory, { recursive: true, mode: 0o755 });
  if (serverLives(site.serverLog)) {
    const running = await findServer(site);
    if (running) {
      closeSync(running.pidfd);
      if (running.argv.slice(1).join('\0') === args.join('\0')) return;
    }
    await stopServer(site, scopes, signal);
  }
  const lock = lockFile(site.serverLog);
  if (lock === 'held')
    throw new RoostError('Unavailable', `Somebody else holds ${site.serverLog}`, {
      hint: 'See who with lsof; it should be the dnsmasq of this network.',
    });
  try {
    ftruncateSync(lock);
    await rm(site.pidFile, { force: true });
    const within = scopes.argv(serverGroup(site), `DHCP and DNS of Roost's network ${site.networkName}`);
    const [first = program, ...rest] = [...within, program, ...args];
    await start(site, [first, ...rest], lock, signal);
  } finally {
    closeSync(lock);
  }
}

/** Ends the server and waits for its end. */
export async function stopServer(site: Site, scopes: ControlGroups, signal: AbortSignal): Promise<void> {
  const running = serverLives(site.serverLog) ? await findServer(site) : undefined;
  if (running) {
    try {
      await end(running.pidfd, signal);
    } finally {
      closeSync(running.pidfd);
    }
  }
  await scopes.remove(serverGroup(site), signal);
  await rm(site.pidFile, { force: true });
}

/** Ends the server that holds this log, of a network that nothing else is known of: its leases lie beside the log. */
export async function stopServerOf(serverLog: string, signal: AbortSignal): Promise<void> {
  if (!serverLives(serverLog)) return;
  const argument = `--dhcp-leasefile=${join(dirname(serverLog), 'leases')}`;
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const server = await serverWith(Number(entry), argument);
    if (!server) continue;
    try {
      await end(server.pidfd, signal);
    } finally {
      closeSync(server.pidfd);
    }
  }
}

/**
 * Lets the server read the files of all ports anew (dnsmasq(8), "SIGHUP"): it takes up a new one by itself, but what a
 * removed one said it goes on knowing, and would refuse its address to the next port.
 */
export async function reloadServer(site: Site): Promise<void> {
  const running = serverLives(site.serverLog) ? await findServer(site) : undefined;
  if (!running) return;
  try {
    signalPidfd(running.pidfd, constants.signals.SIGHUP);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  } finally {
    closeSync(running.pidfd);
  }
}

async function end(pidfd: number, signal: AbortSignal): Promise<void> {
  const ended = deferred<void>();
  const watching = watchReadable(pidfd, () => ended.resolve());
  try {
    signalPidfd(pidfd, constants.signals.SIGTERM);
    await waitOrAbort(ended.promise, signal);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  } finally {
    watching.close();
  }
}

interface RunningServer {
  readonly pidfd: number;
  readonly argv: readonly string[];
}

/** The running server: by its pid file, or, where a crash came before that, among all processes. */
async function findServer(site: Site): Promise<RunningServer | undefined> {
  const noted = Number.parseInt(await readFile(site.pidFile, 'utf8').catch(() => ''), 10);
  const found = Number.isNaN(noted) ? undefined : await serverWith(noted, pidFileArgument(site));
  if (found) return found;
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const server = await serverWith(Number(entry), pidFileArgument(site));
    if (server) return server;
  }
  return undefined;
}

/** The pidfd is opened first, so that what is read then is known to be of the same process. */
async function serverWith(pid: number, argument: string): Promise<RunningServer | undefined> {
  let pidfd: number;
  try {
    pidfd = openPidfd(pid);
  } catch {
    return undefined;
  }
  const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0').slice(0, -1);
  if (argv.includes(argument)) return { pidfd, argv };
  closeSync(pidfd);
  return undefined;
}

/** It writes its pid file once its sockets are open: that is waited for. */
async function start(
  site: Site,
  argv: readonly [string, ...string[]],
  lock: number,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const ready = deferred<void>();
  let pid: number | undefined;
  const look = (): void =>
    void readFile(site.pidFile, 'utf8').then(
      (text) => pid !== undefined && Number.parseInt(text, 10) === pid && ready.resolve(),
      () => undefined,
    );
  const directory = watch(site.runDirectory, look);
  try {
    const child = await spawnServer(argv, lock);
    pid = child.pid;
    // It may have written it before its pid was known here.
    look();
    void child.exit.then(async () => {
      const said = await readFile(site.serverLog, 'utf8').catch(() => '');
      ready.reject(toolFailed(`dnsmasq for network ${site.networkName} ended at once`, said));
    });
    // A failure after the wait was given up is nobody's.
    ready.promise.catch(() => undefined);
    try {
      await waitOrAbort(ready.promise, signal);
    } catch (error) {
      child.kill();
      await child.exit;
      throw error;
    }
  } finally {
    directory.close();
  }
}

async function spawnServer(argv: readonly [string, ...string[]], lock: number): Promise<Child> {
  try {
    return await spawnProgram(argv, [emptyInput(), lock, lock], { cwd: '/' });
  } catch (error) {
    throw isErrno(error, 'ENOENT') ? missingTool('dnsmasq', error) : error;
  }
}

/** Debian's package makes the user dnsmasq; dnsmasq-base alone may not. */
async function serverUser(): Promise<string> {
  const users = await readFile('/etc/passwd', 'utf8').catch(() => '');
  return /^dnsmasq:/m.test(users) ? 'dnsmasq' : 'nobody';
}

const isErrno = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code;

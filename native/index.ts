/**
 * The system calls that Node lacks: locks, shared memory, taps, neighbour events, listening descriptors and descriptors sent to others,
 * children by posix_spawn, pidfds, peer credentials, sd_notify; and the time stamp counter.
 *
 * Rules kept here: every descriptor is close-on-exec and belongs to the caller, who closes it with
 * `fs.closeSync`; nothing waits; every failure is a {@link NativeError}. The addon is loaded on first use, so
 * that a program which needs none of this runs without it.
 */
import { createRequire } from 'node:module';
import { locateBuilt } from './locate.ts';

/**
 * What a failed system call throws. The message names the code, the call and the path or name concerned:
 * `EBUSY: Device or resource busy, TUNSETIFF 'tap0'`. Wrong argument types throw a TypeError instead.
 */
export interface NativeError extends Error {
  /** As in errno(3): `EACCES`. On Linux EWOULDBLOCK has the name `EAGAIN`. */
  readonly code: string;
  /** Negative, as in Node's own errors. */
  readonly errno: number;
  /** The call or ioctl request: `open`, `TUNSETIFF`. */
  readonly syscall: string;
}

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** A program to run; see {@link spawnDetached}. */
export interface SpawnRequest {
  /** A path; PATH is not searched. */
  readonly program: string;
  /** All of it, the program's own name included. */
  readonly argv: readonly string[];
  /** Each as `NAME=value`; nothing is inherited. */
  readonly env: readonly string[];
  readonly cwd: string;
  /** The child has the i-th of these as its descriptor i, and no others. They stay the caller's. */
  readonly descriptors: readonly number[];
}

/** The processor's time stamp counter, and a clock that nobody adjusts, at the same moment. */
export interface Ticks {
  readonly ticks: number;
  readonly nanoseconds: number;
}

/** How a child ended: one of the two is a number. */
export interface ChildEnd {
  readonly code: number | null;
  /** By number, as in `os.constants.signals`. */
  readonly signal: number | null;
}

export interface Watch {
  /** Ends the watch; the callback is not called any more. May be called twice. */
  close(): void;
}

/** A watch inside the addon; only `closeWatch` can do anything with it. */
interface WatchHandle {
  readonly watchHandle: unique symbol;
}

interface Addon {
  lockFile(path: string, mode: number): number | null;
  createMemory(name: string): number;
  sealMemory(fd: number): void;
  openTap(name: string): number;
  enslaveLink(link: string, bridge: string): void;
  setLinkUp(link: string): void;
  linkIndex(name: string): number | undefined;
  openNeighbourEvents(): number;
  listenUnix(path: string, mode: number, backlog: number): number;
  adoptListener(fd: number): string;
  notify(target: string, message: string): void;
  sendDescriptor(fd: number, text: string, descriptor: number): number;
  peerCredentials(fd: number): PeerCredentials;
  groupId(name: string): number | undefined;
  spawnDetached(
    program: string,
    argv: readonly string[],
    env: readonly string[],
    cwd: string,
    descriptors: readonly number[],
  ): Promise<number>;
  reap(pid: number): ChildEnd | undefined;
  readTicks(): Ticks | null;
  openPipe(): [number, number];
  openPidfd(pid: number): number;
  signalPidfd(fd: number, signal: number): void;
  watchReadable(fd: number, onReadable: () => void): WatchHandle;
  closeWatch(handle: WatchHandle): void;
}

let loaded: Addon | undefined;

function addon(): Addon {
  loaded ??= createRequire(import.meta.url)(addonPath()) as Addon;
  return loaded;
}

/** The addon's file; the environment variable ROOST_NATIVE overrides it. */
export function addonPath(): string {
  return locateBuilt('build/native/roost.node', 'ROOST_NATIVE');
}

/** The program that becomes a guest's identity; the environment variable ROOST_LAUNCHER overrides it. */
export function launcherPath(): string {
  return locateBuilt('build/launcher/roost-launcher', 'ROOST_LAUNCHER');
}

/** The first program of a microVM, which is its agent as well; the environment variable ROOST_INIT overrides it. */
export function initPath(): string {
  return locateBuilt('build/guest/roost-init', 'ROOST_INIT');
}

/** Where the program that gives another one parts of files is: `splice/splice.c`. */
export function splicePath(): string {
  return locateBuilt('build/splice/roost-splice', 'ROOST_SPLICE');
}

/** The process of a container (docs/warden.md); the environment variable ROOST_WARDEN overrides it. */
export function wardenPath(): string {
  return locateBuilt('build/warden/roost-warden', 'ROOST_WARDEN');
}

/**
 * Opens a file, making it if need be, and locks it whole (flock(2), LOCK_EX). The lock lasts until the last
 * descriptor of this opening is closed, a child's inherited one included.
 *
 * @param options.mode of a file that is made here, less the umask; 0600 by default
 * @returns the descriptor, or `'held'` when another opening of the file has the lock
 */
export function lockFile(path: string, options: { readonly mode?: number } = {}): number | 'held' {
  return addon().lockFile(path, options.mode ?? 0o600) ?? 'held';
}

/**
 * Makes memory that others map by its descriptor (memfd_create(2)): empty, without a name in any file system, there as
 * long as somebody has it open or mapped. Any process that gets at the descriptor may open it again, whatever its uid.
 *
 * @param name what it is called in /proc/PID/fd, at most 127 bytes
 */
export function createMemory(name: string): number {
  return addon().createMemory(name);
}

/**
 * Makes memory immutable for all who map it from now on, and its size for everybody (F_SEAL_FUTURE_WRITE, F_SEAL_GROW,
 * F_SEAL_SHRINK; fcntl(2)). Private mappings are still to be had. May be done again.
 */
export function sealMemory(fd: number): void {
  addon().sealMemory(fd);
}

/**
 * Makes a tap (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR) that vanishes with the last descriptor of it. It must not
 * exist yet (`EBUSY`), and the name must be one that the kernel takes as it is (`EINVAL`, `ENAMETOOLONG`
 * above 15 bytes).
 */
export function openTap(name: string): number {
  return addon().openTap(name);
}

/** Makes a link a port of a Linux bridge (SIOCBRADDIF); `EBUSY` when it already is a port of one. */
export function enslaveLink(link: string, bridge: string): void {
  addon().enslaveLink(link, bridge);
}

export function setLinkUp(link: string): void {
  addon().setLinkUp(link);
}

/** The link's index in this network namespace, or undefined when there is no such link. */
export function linkIndex(name: string): number | undefined {
  return addon().linkIndex(name);
}

/**
 * Opens a netlink socket that gets every change of the neighbour table of this network namespace (rtnetlink(7), group
 * RTMGRP_NEIGH), one message or a few in a read. It does not block; a reader that is too slow loses messages (`ENOBUFS`).
 */
export function openNeighbourEvents(): number {
  return addon().openNeighbourEvents();
}

/**
 * Makes a listening stream socket at a path of any length (its last part up to 85 bytes). A socket file that
 * lies there is removed first, so the caller must know that nobody serves it; any other file stays and is
 * `EADDRINUSE`. The file never has wider permissions than `mode`, and has exactly `mode` before anybody can
 * connect. The descriptor blocks; `net.Server` and QEMU set what they need.
 */
export function listenUnix(
  path: string,
  options: { readonly mode: number; readonly backlog: number },
): number {
  return addon().listenUnix(path, options.mode, options.backlog);
}

/**
 * Takes charge of a listening stream socket that came through exec (sd_listen_fds(3)): marks it close-on-exec, so that
 * no child of ours keeps it open, and tells its path. `EBADF`, `ENOTSOCK`, `EAFNOSUPPORT` without a path in the file
 * system, `ESOCKTNOSUPPORT` when it does not listen.
 */
export function adoptListener(fd: number): string {
  return addon().adoptListener(fd);
}

/**
 * Sends a text over a connected Unix socket, and with its first byte a descriptor (SCM_RIGHTS, unix(7)): the receiver has
 * a duplicate of it. The caller's own stays the caller's, who must have nothing else on its way to this socket.
 *
 * @param text at most 4,095 bytes
 * @returns how many bytes were sent, at least one; throws `EAGAIN` when the receiver's queue is full
 */
export function sendDescriptor(fd: number, text: string, descriptor: number): number {
  return addon().sendDescriptor(fd, text, descriptor);
}

/** The other end of a connected Unix socket, as it was when it connected (SO_PEERCRED, unix(7)). */
export function peerCredentials(fd: number): PeerCredentials {
  return addon().peerCredentials(fd);
}

/**
 * Runs a program as a child in a session of its own, with every signal at its default and none blocked
 * (posix_spawn(3)), from a thread of its own: whoever spawns stands still until the child executes, which waits for a
 * processor like everybody, and Node's spawn has the event loop wait for that and copies the page tables before.
 * The descriptors have to stay open until it is done. `ENOENT` is of the program or of `cwd`.
 *
 * @returns the pid, which stays the child's until {@link reap} has told its end: Node knows nothing of this child
 */
export async function spawnDetached({ program, argv, env, cwd, descriptors }: SpawnRequest): Promise<number> {
  return await addon().spawnDetached(program, argv, env, cwd, descriptors);
}

/**
 * Takes the end of a child of {@link spawnDetached}, and its pid with it (waitpid(2)); undefined while it has not ended.
 * While somebody traces it (ptrace(2)) it has not, although its pidfd is readable: SIGCHLD is the notice to go by.
 * `ECHILD` when there is no such child, or its end was taken already.
 */
export function reap(pid: number): ChildEnd | undefined {
  return addon().reap(pid);
}

/** A pipe (pipe2(2), O_CLOEXEC): the end to read from, the end to write to. */
export function openPipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const [readEnd, writeEnd] = addon().openPipe();
  return { readEnd, writeEnd };
}

/** A descriptor of a process (pidfd_open(2)), readable once it has ended; `ESRCH` when there is none. */
export function openPidfd(pid: number): number {
  return addon().openPidfd(pid);
}

/** Sends a signal by number (`os.constants.signals`; 0 only asks); `ESRCH` when the process has ended. */
export function signalPidfd(fd: number, signal: number): void {
  addon().signalPidfd(fd, signal);
}

/**
 * Calls back once, on the event loop, when the descriptor can be read. The watch does not keep the process
 * alive. It has its own duplicate of the descriptor, and makes the open file non-blocking.
 */
export function watchReadable(fd: number, onReadable: () => void): Watch {
  const handle = addon().watchReadable(fd, onReadable);
  return { close: () => addon().closeWatch(handle) };
}

/**
 * Tells the service manager something (sd_notify(3)): `READY=1`, `STATUS=…`, `STOPPING=1`.
 *
 * @returns false when no manager listens (NOTIFY_SOCKET is unset); throws `EAGAIN` when its queue is full
 */
export function sdNotify(message: string): boolean {
  const target = process.env.NOTIFY_SOCKET;
  if (target === undefined || target === '') return false;
  addon().notify(target, message);
  return true;
}

/** A group's number, or undefined when there is no such group. Asks NSS and may wait: for start-up only. */
export function groupId(name: string): number | undefined {
  return addon().groupId(name);
}

/** Undefined where the processor has no such counter. */
export function readTicks(): Ticks | undefined {
  return addon().readTicks() ?? undefined;
}

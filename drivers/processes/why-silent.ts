/**
 * Why a monitor is silent: what its process does, or that another client has it. QEMU serves one client of a monitor at a
 * time; a second one is connected by the kernel and hears nothing, not even the greeting, until the first is gone.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { descriptorNumbers } from './process-interface.ts';
import { classifySilence, type Silence } from './qmp/silence.ts';

/** `held`: another client is connected to the monitor, by whom it is served instead of us. */
export type WhySilent = Silence | 'held';

/** `isGreeted`: whether QEMU has greeted us, so that nobody else can have the monitor. */
export const whySilent = async (
  pid: number,
  { isGreeted }: { readonly isGreeted: boolean },
): Promise<WhySilent> => {
  const silence = await classifySilence(pid);
  return silence === 'busy' && !isGreeted && (await servesAnother(pid)) ? 'held' : silence;
};

/**
 * Whether the process has a connection open that was accepted on its monitor, while another, ours, waits to be. One that
 * has accepted us and does not greet is busy. False where that cannot be told.
 */
const servesAnother = async (pid: number): Promise<boolean> => {
  const descriptors = `/proc/${pid}/fd`;
  try {
    const listener = socketInode(await readlink(`${descriptors}/${descriptorNumbers.monitor}`));
    const sockets = parseUnixSockets(await readFile('/proc/net/unix', 'utf8'));
    const path = sockets.find(({ inode }) => inode === listener)?.path;
    if (listener === undefined || path === undefined) return false;
    const accepted = new Set(sockets.filter((each) => each.path === path).map(({ inode }) => inode));
    if (!accepted.delete(UNACCEPTED)) return false;
    accepted.delete(listener);
    const links = (await readdir(descriptors)).map((number) =>
      readlink(`${descriptors}/${number}`).catch(() => ''),
    );
    return (await Promise.all(links)).some((link) => accepted.has(socketInode(link) ?? ''));
  } catch {
    return false;
  }
};

const socketInode = (link: string): string | undefined => /^socket:\[(\d+)\]$/.exec(link)?.[1];

/** Inode of a connection that waits to be accepted. */
const UNACCEPTED = '0';

export interface UnixSocket {
  /** 0 of a connection that nobody has accepted yet. */
  readonly inode: string;
  /** As it was bound; a connection that was accepted has its listener's. */
  readonly path: string;
}

/** Lines of /proc/net/unix (proc(5)) whose socket has a path: `Num: RefCount Protocol Flags Type St Inode Path`. */
export const parseUnixSockets = (text: string): readonly UnixSocket[] =>
  text.split('\n').flatMap((line) => {
    const [, inode, path] = /^[0-9a-f]+: (?:[0-9A-F]+ ){5} *(\d+) (.+)$/.exec(line) ?? [];
    return inode === undefined || path === undefined ? [] : [{ inode, path }];
  });

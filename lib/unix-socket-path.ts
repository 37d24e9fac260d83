/**
 * Reaches unix sockets whose path is longer than a socket address can hold (unix(7): 108 bytes with the
 * closing zero), through a descriptor of their directory.
 */
import { constants } from 'node:fs';
import { basename, dirname } from 'node:path';

/** Longest path, in bytes, that fits a unix socket address. */
export const MAX_SOCKET_PATH_BYTES = 107;

export class SocketPathTooLongError extends Error {
  override readonly name = 'SocketPathTooLongError';
  readonly path: string;

  constructor(path: string) {
    super(`The file name of the socket ${path} is too long for a unix socket address`);
    this.path = path;
  }
}

export interface ConnectablePath {
  /** The same socket by a path that fits an address; valid until `release`. */
  readonly path: string;
  /** Call it once connected (or bound, or failed). */
  readonly release: () => Promise<void>;
}

/**
 * A path for `connect` or `bind` that means the same socket. Fails as opening the directory does, or with
 * {@link SocketPathTooLongError} when the file name alone is too long.
 */
export async function connectablePath(path: string): Promise<ConnectablePath> {
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return { path, release: async () => undefined };
  // Seldom needed, and everybody who connects loads this file.
  const { open } = await import('node:fs/promises');
  const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  const short = `/proc/self/fd/${directory.fd}/${basename(path)}`;
  if (Buffer.byteLength(short) > MAX_SOCKET_PATH_BYTES) {
    await directory.close();
    throw new SocketPathTooLongError(path);
  }
  return { path: short, release: () => directory.close() };
}

/** Connects to a unix socket by its path, however long that is. */
import { connect, type Socket } from 'node:net';
import { deferred, waitOrAbort } from './abort.ts';
import { connectablePath } from './unix-socket-path.ts';

/** Errors: those of connect(2), SocketPathTooLongError, the signal's reason; nothing stays open then. */
export const connectUnixSocket = async (path: string, signal: AbortSignal): Promise<Socket> => {
  signal.throwIfAborted();
  const target = await connectablePath(path);
  const socket = connect({ path: target.path });
  const connected = deferred<void>();
  socket.once('connect', connected.resolve);
  socket.once('error', connected.reject);
  try {
    await waitOrAbort(connected.promise, signal);
    socket.off('error', connected.reject);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    await target.release();
  }
};

/**
 * Files that clients have open in guests. An agent keeps a file open until it is told to close it, so each belongs to
 * the connection that opened it and is closed with it. Handles of clients are numbers of the daemon's own: those of
 * agents begin anew with every agent.
 */
import type { GuestAgent } from '../../drivers/driver.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';

const MAX_FILES = 16;
/** Bytes that may go through one open file: what an agent does well is small; larger things are disks. */
const MAX_BYTES = 1024 * 1024 * 1024;

/** Whoever a file belongs to: the session, and the signal that aborts at its end. */
export interface FileOwner {
  readonly session: object;
  readonly signal: AbortSignal;
}

interface OpenFile {
  readonly guest: Guest;
  readonly owner: object;
  /** The agent's handle, of use while this is still the agent that gave it. */
  readonly agentHandle: number;
  readonly opening: number;
  bytes: number;
}

type Ask<T> = (agent: GuestAgent, agentHandle: number, signal: AbortSignal) => Promise<T>;

export class AgentFiles {
  readonly #files = new Map<number, OpenFile>();
  #next = 1;

  async open(
    guest: Guest,
    owner: FileOwner,
    { path, mode, timeoutMs }: { readonly path: string; readonly mode: string; readonly timeoutMs: number },
  ): Promise<number> {
    const held = [...this.#files.values()].filter((file) => file.owner === owner.session).length;
    if (held >= MAX_FILES) {
      throw new RoostError('ResourceExhausted', `This connection has ${held} files open in guests`, {
        hint: 'Close one with guest-file-close.',
      });
    }
    const { signal } = owner;
    const ask = (agent: GuestAgent, limit: AbortSignal): Promise<number> => agent.openFile(path, mode, limit);
    const agentHandle = await guest.agent.use(ask, { signal, timeoutMs });
    const handle = this.#next;
    this.#next += 1;
    const { openings: opening } = guest.agent;
    this.#files.set(handle, { guest, owner: owner.session, agentHandle, opening, bytes: 0 });
    const abandon = (): void => void this.#abandon(handle);
    if (signal.aborted) abandon();
    else signal.addEventListener('abort', abandon, { once: true });
    return handle;
  }

  /** Asks about an open file. `bytes`: how many the request moves. Errors: NotFound, ResourceExhausted, the agent's. */
  async use<T>(
    guest: Guest,
    owner: FileOwner,
    request: { readonly handle: number; readonly timeoutMs: number; readonly bytes?: number },
    ask: Ask<T>,
  ): Promise<T> {
    const { handle, timeoutMs, bytes = 0 } = request;
    const file = this.#files.get(handle);
    const isOurs = file?.owner === owner.session && file.guest === guest;
    if (!file || !isOurs || file.opening !== guest.agent.openings) {
      throw new RoostError('NotFound', `This connection has no file ${handle} open in guest ${guest.name}`, {
        data: { guest: guest.name, handle },
        hint: 'Open it with guest-file-open; an agent that was restarted has closed its files.',
      });
    }
    file.bytes += bytes;
    if (file.bytes > MAX_BYTES) {
      throw new RoostError('ResourceExhausted', `More than ${MAX_BYTES} bytes went through file ${handle}`, {
        data: { guest: guest.name, handle, maxBytes: MAX_BYTES },
        hint: 'Move larger things over the network, or as a disk.',
      });
    }
    const { signal } = owner;
    return await guest.agent.use((agent, limit) => ask(agent, file.agentHandle, limit), {
      signal,
      timeoutMs,
    });
  }

  async close(guest: Guest, owner: FileOwner, request: { handle: number; timeoutMs: number }): Promise<void> {
    await this.use(guest, owner, request, (agent, handle, signal) => agent.closeFile(handle, signal));
    this.#files.delete(request.handle);
  }

  /** The connection is gone; its file in the guest is to go too, if the agent still listens. */
  async #abandon(handle: number): Promise<void> {
    const file = this.#files.get(handle);
    this.#files.delete(handle);
    if (!file || file.opening !== file.guest.agent.openings) return;
    const { house, name } = file.guest;
    const close = (agent: GuestAgent, limit: AbortSignal): Promise<void> =>
      agent.closeFile(file.agentHandle, limit);
    await file.guest.agent
      .use(close, { signal: house.stopping })
      .catch((error: unknown) =>
        house.log.debug({ err: error, guest: name }, 'a file in a guest stays open'),
      );
  }
}

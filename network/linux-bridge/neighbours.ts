/**
 * Who the kernel has met on which link: its neighbour table (ip-neighbour(8)), asked once or listened to. The one socket
 * of a backend is open only while somebody listens, and ends with the daemon.
 */
import { closeSync, readSync } from 'node:fs';
import { openNeighbourEvents, type Watch, watchReadable } from '../../native/index.ts';
import { ip } from './host-tool.ts';
import { type NeighbourChange, parseNeighbourMessages } from './neighbour-messages.ts';

/** Larger than any read that the kernel fills at once (NLMSG_GOODSIZE). */
const READ_BYTES = 32_768;

export interface Neighbour {
  readonly address: string;
  readonly mac: string;
  /** As `ip neigh` has it, in lower case. */
  readonly state: string;
}

/** The entries of a link with a MAC address. */
export async function neighboursOn(link: string, signal: AbortSignal): Promise<readonly Neighbour[]> {
  const said = await ip({ args: ['-json', '-4', 'neigh', 'show', 'dev', link] }, signal);
  const entries = (said.trim() === '' ? [] : JSON.parse(said)) as readonly {
    readonly dst?: string;
    readonly lladdr?: string;
    readonly state?: readonly string[];
  }[];
  return entries.flatMap(({ dst, lladdr, state = [] }) =>
    dst === undefined || lladdr === undefined
      ? []
      : [{ address: dst, mac: lladdr, state: state.join(' ').toLowerCase() }],
  );
}

/**
 * Lets the kernel ask an address whether it is still there: three ARP requests, a second between them. What comes of it
 * is told to listeners: `reachable`, or `failed` or `gone`.
 */
export async function probeNeighbour(
  link: string,
  address: string,
  mac: string,
  signal: AbortSignal,
): Promise<void> {
  await ip({ args: ['neigh', 'replace', address, 'dev', link, 'lladdr', mac, 'nud', 'probe'] }, signal);
}

export type NeighbourListener = (change: NeighbourChange) => void;

interface Source {
  readonly descriptor: number;
  watch: Watch;
}

export class NeighbourEvents {
  readonly #listeners = new Set<NeighbourListener>();
  #source: Source | undefined;

  /** Calls `listener` for each change until the returned function is called. */
  listen(listener: NeighbourListener): () => void {
    this.#listeners.add(listener);
    this.#source ??= this.#open();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#close();
    };
  }

  #open(): Source {
    const descriptor = openNeighbourEvents();
    const arm = (): Watch =>
      watchReadable(descriptor, () => {
        this.#read(descriptor);
        if (this.#source === source) source.watch = arm();
      });
    const source: Source = { descriptor, watch: arm() };
    return source;
  }

  #read(descriptor: number): void {
    const buffer = Buffer.alloc(READ_BYTES);
    let length = 0;
    try {
      length = readSync(descriptor, buffer);
    } catch {
      // Nothing to read after all, or messages were lost; whoever waits for a neighbour asks again in time.
      return;
    }
    for (const change of parseNeighbourMessages(buffer.subarray(0, length)))
      for (const listener of this.#listeners) listener(change);
  }

  #close(): void {
    this.#source?.watch.close();
    if (this.#source) closeSync(this.#source.descriptor);
    this.#source = undefined;
  }
}

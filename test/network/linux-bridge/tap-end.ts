/** The guest's end of a tap: what is written to its descriptor is what a guest sends, what is read what it gets. */
import { closeSync, readSync, writeSync } from 'node:fs';
import { deferred, waitOrAbort } from '../../../lib/abort.ts';
import { watchReadable } from '../../../native/index.ts';
import {
  arp,
  BROADCAST,
  ETHERTYPE,
  type Ethernet,
  ethernet,
  parseArp,
  parseEthernet,
  parseUdp,
  type Udp,
  udp,
} from './frames.ts';

/** IFF_VNET_HDR: a struct virtio_net_hdr, all zero, stands before every frame. */
const VNET_HEADER_BYTES = 10;

export class TapEnd {
  readonly mac: string;
  readonly ip: string;
  /** Every frame that was read, in order. */
  readonly seen: Ethernet[] = [];
  readonly #descriptor: number;

  constructor(descriptor: number, mac: string, ip: string) {
    this.#descriptor = descriptor;
    this.mac = mac;
    this.ip = ip;
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  send(frame: Partial<Ethernet> & Pick<Ethernet, 'type' | 'payload'>): void {
    const bytes = ethernet({ to: BROADCAST, from: this.mac, ...frame });
    writeSync(this.#descriptor, Buffer.concat([Buffer.alloc(VNET_HEADER_BYTES), bytes]));
  }

  sendUdp(packet: Partial<Udp> & Pick<Udp, 'to'>, link: { from?: string; to?: string } = {}): void {
    const whole = { from: this.ip, fromPort: 4000, toPort: 4000, data: Buffer.from('hello'), ...packet };
    this.send({ type: ETHERTYPE.ipv4, payload: udp(whole), ...link });
  }

  /** The next frame for which `pick` gives something. */
  async receive<T>(pick: (frame: Ethernet) => T | undefined, signal: AbortSignal): Promise<T> {
    for (;;) {
      const frame = this.#read();
      if (frame === undefined) {
        await this.#readable(signal);
        continue;
      }
      this.seen.push(frame);
      const picked = pick(frame);
      if (picked !== undefined) return picked;
    }
  }

  /** The next UDP packet for which `wanted` holds. Answers when somebody asks for our address meanwhile. */
  receiveUdp(wanted: (packet: Udp) => boolean, signal: AbortSignal): Promise<Udp> {
    return this.receive((frame) => {
      if (frame.type === ETHERTYPE.arp) this.#answer(frame);
      const packet = frame.type === ETHERTYPE.ipv4 ? parseUdp(frame.payload) : undefined;
      return packet && wanted(packet) ? packet : undefined;
    }, signal);
  }

  #answer(frame: Ethernet): void {
    const question = parseArp(frame.payload);
    if (question.operation !== 'request' || question.targetIp !== this.ip) return;
    const payload = arp({
      operation: 'reply',
      senderMac: this.mac,
      senderIp: this.ip,
      targetMac: question.senderMac,
      targetIp: question.senderIp,
    });
    this.send({ to: frame.from, type: ETHERTYPE.arp, payload });
  }

  /** The watch makes the descriptor non-blocking, so it comes before the first read. */
  #read(): Ethernet | undefined {
    const buffer = Buffer.alloc(65_536);
    try {
      const length = this.#nonBlocking(() => readSync(this.#descriptor, buffer));
      return parseEthernet(buffer.subarray(VNET_HEADER_BYTES, length));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return undefined;
      throw error;
    }
  }

  #nonBlocking<T>(work: () => T): T {
    watchReadable(this.#descriptor, () => undefined).close();
    return work();
  }

  async #readable(signal: AbortSignal): Promise<void> {
    const readable = deferred<void>();
    const watch = watchReadable(this.#descriptor, () => readable.resolve());
    try {
      await waitOrAbort(readable.promise, signal);
    } finally {
      watch.close();
    }
  }
}

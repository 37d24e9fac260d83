/**
 * As much of libvirt's remote protocol (src/remote/remote_protocol.x of libvirt) as the bench's peer needs: the same
 * calls over the same socket that its library makes, without a process or a native module between.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { XdrReader, xdrInt, xdrOptionalString, xdrString } from './xdr.ts';

const PROGRAM = 0x20008086;
const VERSION = 1;
const HEADER_BYTES = 28;

const procedures = {
  open: 1,
  create: 9,
  define: 11,
  destroy: 12,
  describe: 14,
  undefine: 35,
  authList: 66,
  createWithFlags: 196,
  state: 212,
  listAll: 273,
  allStats: 344,
} as const;
const START_PAUSED = 1;
/** VIR_DOMAIN_STATS_STATE */
const STATS_STATE = 1;

export interface Domain {
  readonly name: string;
  readonly uuid: Buffer;
  readonly id: number;
}

const domainBytes = ({ name, uuid, id }: Domain): Buffer =>
  Buffer.concat([xdrString(name), uuid, xdrInt(id)]);

const readDomain = (reader: XdrReader): Domain => ({
  name: reader.string(),
  uuid: reader.fixed(16),
  id: reader.int(),
});

interface Waiting {
  readonly resolve: (body: Buffer) => void;
  readonly reject: (error: Error) => void;
}

export class LibvirtClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #serial = 0;
  #unread: Buffer[] = [];
  #unreadBytes = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#hear(chunk));
    socket.on('close', () => this.#fail(new Error('libvirtd closed the connection')));
    socket.on('error', (error) => this.#fail(error));
  }

  static async open(path: string): Promise<LibvirtClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    const client = new LibvirtClient(socket);
    await client.#call(procedures.authList, Buffer.alloc(0));
    await client.#call(procedures.open, Buffer.concat([xdrOptionalString('qemu:///system'), xdrInt(0)]));
    return client;
  }

  async define(xml: string): Promise<Domain> {
    return readDomain(new XdrReader(await this.#call(procedures.define, xdrString(xml))));
  }

  /** Resolves when it runs. */
  async create(domain: Domain): Promise<void> {
    await this.#call(procedures.create, domainBytes(domain));
  }

  async createPaused(domain: Domain): Promise<void> {
    await this.#call(procedures.createWithFlags, Buffer.concat([domainBytes(domain), xdrInt(START_PAUSED)]));
  }

  async destroy(domain: Domain): Promise<void> {
    await this.#call(procedures.destroy, domainBytes(domain));
  }

  /** Its definition and what runs of it, as XML. */
  async describe(domain: Domain): Promise<string> {
    const body = await this.#call(procedures.describe, Buffer.concat([domainBytes(domain), xdrInt(0)]));
    return new XdrReader(body).string();
  }

  async undefine(domain: Domain): Promise<void> {
    await this.#call(procedures.undefine, domainBytes(domain));
  }

  async listAll(): Promise<readonly Domain[]> {
    const reader = new XdrReader(await this.#call(procedures.listAll, Buffer.concat([xdrInt(1), xdrInt(0)])));
    return Array.from({ length: reader.int() }, () => readDomain(reader));
  }

  /** virDomainState: 1 runs, 3 is paused, 5 is shut off. */
  async state(domain: Domain): Promise<number> {
    const body = await this.#call(procedures.state, Buffer.concat([domainBytes(domain), xdrInt(0)]));
    return new XdrReader(body).int();
  }

  /** The states of all domains in one call; gives how many there were. */
  async allStates(): Promise<number> {
    const body = Buffer.concat([xdrInt(0), xdrInt(STATS_STATE), xdrInt(0)]);
    return new XdrReader(await this.#call(procedures.allStats, body)).int();
  }

  close(): void {
    this.#socket.destroy();
  }

  async #call(procedure: number, body: Buffer): Promise<Buffer> {
    this.#serial += 1;
    const serial = this.#serial;
    const header = [HEADER_BYTES + body.length, PROGRAM, VERSION, procedure, 0, serial, 0].map(xdrInt);
    const answered = new Promise<Buffer>((resolve, reject) => this.#waiting.set(serial, { resolve, reject }));
    this.#socket.write(Buffer.concat([...header, body]));
    return await answered;
  }

  #hear(chunk: Buffer): void {
    this.#unread.push(chunk);
    this.#unreadBytes += chunk.length;
    let bytes: Buffer | undefined;
    while (this.#unreadBytes >= 4) {
      const all: Buffer = bytes ?? Buffer.concat(this.#unread);
      const length = all.readUInt32BE(0);
      bytes = all;
      if (all.length < length) break;
      this.#answer(all.subarray(0, length));
      bytes = all.subarray(length);
      this.#unread = [bytes];
      this.#unreadBytes = bytes.length;
    }
    if (bytes) this.#unread = [bytes];
  }

  #answer(message: Buffer): void {
    const [type, serial, status] = [16, 20, 24].map((at) => message.readUInt32BE(at)) as [
      number,
      number,
      number,
    ];
    const waiting = type === 1 ? this.#waiting.get(serial) : undefined;
    if (!waiting) return;
    this.#waiting.delete(serial);
    const body = message.subarray(HEADER_BYTES);
    if (status === 0) waiting.resolve(body);
    else waiting.reject(new Error(`libvirtd refused: ${errorText(body)}`));
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** virNetMessageError: code, domain, and a message that may be missing. */
const errorText = (body: Buffer): string => {
  const reader = new XdrReader(body);
  const [code, , has] = [reader.int(), reader.int(), reader.int()];
  return has === 1 ? reader.string() : `code ${code}`;
};

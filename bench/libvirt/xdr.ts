/** The few forms of XDR (RFC 4506) that libvirt's calls need: 32-bit integers, and strings padded to words of four bytes. */

const padded = (length: number): number => Math.ceil(length / 4) * 4;

export const xdrInt = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};

export const xdrString = (text: string): Buffer => {
  const length = Buffer.byteLength(text);
  const bytes = Buffer.alloc(4 + padded(length));
  bytes.writeUInt32BE(length);
  bytes.write(text, 4);
  return bytes;
};

export const xdrOptionalString = (text: string): Buffer => Buffer.concat([xdrInt(1), xdrString(text)]);

export class XdrReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int(): number {
    const value = this.#bytes.readInt32BE(this.#at);
    this.#at += 4;
    return value;
  }

  /** Opaque bytes of a fixed length, a multiple of four. */
  fixed(length: number): Buffer {
    const value = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return value;
  }

  string(): string {
    const length = this.int();
    const value = this.#bytes.toString('utf8', this.#at, this.#at + length);
    this.#at += padded(length);
    return value;
  }
}

/**
 * The fields of a payload (docs/guest-protocol.md, "Fields"): tag (u16), length (u32), value. Pure. What is read comes
 * from a guest: every length is checked, a value of another form than its tag's is an error.
 */

export const tags = {
  version: 1,
  versionMax: 2,
  agent: 3,
  bootId: 4,
  state: 5,
  message: 6,
  errno: 7,
  token: 8,
  count: 9,
  timeout: 10,
  echo: 11,
  process: 16,
  pid: 17,
  argument: 18,
  environment: 19,
  directory: 20,
  user: 21,
  group: 22,
  terminal: 23,
  stdin: 24,
  stdout: 25,
  stderr: 26,
  window: 27,
  capabilities: 28,
  ambient: 29,
  noNewPrivileges: 30,
  rlimit: 31,
  cgroup: 32,
  umask: 33,
  oomScoreAdj: 34,
  signal: 35,
  all: 36,
  exitCode: 37,
  exitSignal: 38,
  cpuTime: 39,
  maxRss: 40,
  path: 48,
  mode: 49,
  uid: 50,
  gid: 51,
  size: 52,
  mtime: 53,
  target: 54,
  stream: 55,
  inPlace: 56,
  parents: 57,
  seed: 64,
  time: 65,
  hostname: 66,
  machineId: 67,
  interface: 68,
  mac: 69,
  newMac: 70,
  mtu: 71,
  up: 72,
  address: 73,
  route: 74,
  nameserver: 75,
  search: 76,
  option: 77,
  host: 78,
  replace: 79,
  source: 88,
  fstype: 89,
  mountFlags: 90,
  options: 91,
  action: 92,
  release: 96,
  uptime: 97,
  memoryTotal: 98,
  memoryAvailable: 99,
  frozen: 100,
} as const;

export type Tag = keyof typeof tags;

const FIELD_HEADER_BYTES = 6;

/** A payload that is no sequence of fields, or lacks one, or has one of another form. */
export class FieldError extends Error {
  override readonly name = 'FieldError';
}

/** Puts a payload together; what is undefined is left out. */
export class FieldWriter {
  readonly #parts: Buffer[] = [];

  bytes(tag: Tag, value: Uint8Array | undefined): this {
    if (value === undefined) return this;
    const header = Buffer.alloc(FIELD_HEADER_BYTES);
    header.writeUInt16LE(tags[tag], 0);
    header.writeUInt32LE(value.length, 2);
    this.#parts.push(header, Buffer.from(value.buffer, value.byteOffset, value.length));
    return this;
  }

  text(tag: Tag, value: string | undefined): this {
    return value === undefined ? this : this.bytes(tag, Buffer.from(value));
  }

  texts(tag: Tag, values: readonly string[] | undefined): this {
    for (const value of values ?? []) this.text(tag, value);
    return this;
  }

  /** A field without a value, if so. */
  flag(tag: Tag, isSo: boolean | undefined): this {
    return isSo === true ? this.bytes(tag, Buffer.alloc(0)) : this;
  }

  u8(tag: Tag, value: number | undefined): this {
    return value === undefined ? this : this.bytes(tag, Buffer.of(value));
  }

  u16(tag: Tag, value: number | undefined): this {
    if (value === undefined) return this;
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16LE(value);
    return this.bytes(tag, bytes);
  }

  u32(tag: Tag, value: number | undefined): this {
    if (value === undefined) return this;
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return this.bytes(tag, bytes);
  }

  i32(tag: Tag, value: number | undefined): this {
    return this.u32(tag, value === undefined ? undefined : value >>> 0);
  }

  u64(tag: Tag, value: bigint | undefined): this {
    if (value === undefined) return this;
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    return this.bytes(tag, bytes);
  }

  payload(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export interface Field {
  readonly tag: number;
  readonly value: Buffer;
}

/** The fields of a payload, in order. Throws FieldError if they do not fill it exactly. */
export const parseFields = (payload: Buffer): readonly Field[] => {
  const fields: Field[] = [];
  for (let from = 0; from < payload.length; ) {
    if (payload.length - from < FIELD_HEADER_BYTES) throw new FieldError('a field is cut');
    const length = payload.readUInt32LE(from + 2);
    const start = from + FIELD_HEADER_BYTES;
    if (length > payload.length - start) throw new FieldError('a field is longer than its payload');
    fields.push({ tag: payload.readUInt16LE(from), value: payload.subarray(start, start + length) });
    from = start + length;
  }
  return fields;
};

/** Reads fields by their tags; tags that are not asked for are nobody's. */
export class FieldReader {
  readonly #fields: readonly Field[];

  constructor(fields: readonly Field[]) {
    this.#fields = fields;
  }

  static of(payload: Buffer): FieldReader {
    return new FieldReader(parseFields(payload));
  }

  get all(): readonly Field[] {
    return this.#fields;
  }

  has(tag: Tag): boolean {
    return this.#fields.some((field) => field.tag === tags[tag]);
  }

  /** The first value of a tag. */
  bytes(tag: Tag, maxBytes: number): Buffer | undefined {
    const value = this.#fields.find((field) => field.tag === tags[tag])?.value;
    if (value && value.length > maxBytes) throw new FieldError(`${tag} has ${value.length} bytes`);
    return value;
  }

  text(tag: Tag, maxBytes: number): string | undefined {
    return this.bytes(tag, maxBytes)?.toString('utf8');
  }

  u8(tag: Tag): number | undefined {
    return this.#exactly(tag, 1)?.readUInt8();
  }

  u16(tag: Tag): number | undefined {
    return this.#exactly(tag, 2)?.readUInt16LE();
  }

  u32(tag: Tag): number | undefined {
    return this.#exactly(tag, 4)?.readUInt32LE();
  }

  u64(tag: Tag): bigint | undefined {
    return this.#exactly(tag, 8)?.readBigUInt64LE();
  }

  /** A number that fits one of JavaScript's. */
  size(tag: Tag): number | undefined {
    const value = this.u64(tag);
    if (value !== undefined && value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new FieldError(`${tag} is larger than any size`);
    }
    return value === undefined ? undefined : Number(value);
  }

  #exactly(tag: Tag, size: number): Buffer | undefined {
    const value = this.bytes(tag, size);
    if (value && value.length !== size) throw new FieldError(`${tag} has ${value.length} bytes`);
    return value;
  }
}

/** The value, which has to be there. */
export const required = <T>(value: T | undefined, tag: Tag): T => {
  if (value === undefined) throw new FieldError(`${tag} is missing`);
  return value;
};

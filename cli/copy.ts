/**
 * `roost cp`: one file into a guest or out of it, piece by piece through its agent. A copy counts when the sizes agree;
 * what arrives on this side has its name only then.
 */
import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { CommandInput, CommandReturn } from '../protocol/commands.ts';
import type { Client } from './client.ts';
import { CliFailure, usageFailure } from './failure.ts';
import type { Context } from './io.ts';
import type { Invocation } from './verb.ts';

const CHUNK_BYTES = 65_536;

interface InGuest {
  readonly guest: string;
  readonly path: string;
}

/** `NAME:/path`; undefined for a path of this side. */
const inGuest = (text: string): InGuest | undefined => {
  const [, guest, path] = /^([A-Za-z0-9-]+):(.+)$/s.exec(text) ?? [];
  return guest === undefined || path === undefined ? undefined : { guest, path };
};

const differs = (what: string, expected: number, got: number): CliFailure =>
  new CliFailure({
    class: 'DataLoss',
    desc: `${what} has ${got} bytes and should have ${expected}`,
    hint: 'It was changed while it was copied, or there was no room for it. Copy it again.',
  });

/** An open file in a guest. */
class GuestFile {
  readonly #client: Client;
  readonly #signal: AbortSignal;
  readonly #of: { readonly guest: string; readonly handle: number };

  private constructor(client: Client, signal: AbortSignal, of: { guest: string; handle: number }) {
    this.#client = client;
    this.#signal = signal;
    this.#of = of;
  }

  static async open(
    client: Client,
    { guest, path }: InGuest,
    mode: 'r' | 'w',
    signal: AbortSignal,
  ): Promise<GuestFile> {
    const { handle } = await client.call('guest-file-open', { guest, path, mode }, { signal });
    return new GuestFile(client, signal, { guest, handle });
  }

  async size(): Promise<number> {
    const { position } = await this.#call('guest-file-seek', { whence: 'end' });
    await this.#call('guest-file-seek', { whence: 'set' });
    return position;
  }

  async read(): Promise<{ bytes: Buffer; eof: boolean }> {
    const { buf, eof } = await this.#call('guest-file-read', { count: CHUNK_BYTES });
    return { bytes: Buffer.from(buf, 'base64'), eof };
  }

  /** Writes all of it, however little the agent takes at a time. */
  async write(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const { count } = await this.#call('guest-file-write', { buf: bytes.subarray(at).toString('base64') });
      if (count === 0) throw differs('What was written', bytes.length, at);
      at += count;
    }
  }

  async close(): Promise<void> {
    await this.#call('guest-file-close', {});
  }

  #call<N extends `guest-file-${'seek' | 'read' | 'write' | 'close'}`>(
    name: N,
    args: Readonly<Record<string, unknown>>,
  ): Promise<CommandReturn<N>> {
    return this.#client.call(name, { ...this.#of, ...args } as CommandInput<N>, { signal: this.#signal });
  }
}

/** Gives the copy in the guest the permissions of the file; an agent has no command for it, so a program does it. */
const setMode = async (context: Context, { guest, path }: InGuest, mode: number): Promise<void> => {
  const { signal, note } = context;
  const client = await context.client();
  try {
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    const { pid } = await client.call('guest-exec', { guest, path: 'chmod', arg: [octal, path] }, { signal });
    const status = await client.call('guest-exec-status', { guest, pid, waitMs: 30_000 }, { signal });
    if (status.exitcode === 0) return;
    note(`roost: the permissions of ${path} could not be set in the guest`);
  } catch (error) {
    if (!(error instanceof CliFailure)) throw error;
    note(`roost: the permissions of ${path} could not be set in the guest: ${error.message}`);
  }
};

/** The permissions of a file in the guest; undefined where no program tells them. */
const modeOf = async (context: Context, { guest, path }: InGuest): Promise<number | undefined> => {
  const { signal } = context;
  const client = await context.client();
  try {
    const arg = ['-L', '-c', '%a', path];
    const { pid } = await client.call('guest-exec', { guest, path: 'stat', arg }, { signal });
    const { outData = '' } = await client.call(
      'guest-exec-status',
      { guest, pid, waitMs: 30_000 },
      { signal },
    );
    const mode = /^[0-7]{1,5}$/.exec(Buffer.from(outData, 'base64').toString('latin1').trim());
    return mode === null ? undefined : Number.parseInt(mode[0], 8) & 0o777;
  } catch (error) {
    if (!(error instanceof CliFailure)) throw error;
    return undefined;
  }
};

const copyIn = async (from: string, to: InGuest, context: Context): Promise<number> => {
  const { signal } = context;
  await using file = await open(from, 'r').catch((error: Error) => {
    throw usageFailure(`Cannot read '${from}': ${error.message}`);
  });
  const facts = await file.stat();
  if (!facts.isFile())
    throw usageFailure(`'${from}' is no regular file`, 'Copy files one by one, or an archive.');
  const target = to.path.endsWith('/') ? { ...to, path: join(to.path, basename(from)) } : to;
  const client = await context.client();
  const written = await GuestFile.open(client, target, 'w', signal);
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let total = 0;
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, total);
    if (bytesRead === 0) break;
    await written.write(buffer.subarray(0, bytesRead));
    total += bytesRead;
  }
  await written.close();
  const copy = await GuestFile.open(client, target, 'r', signal);
  const size = await copy.size();
  await copy.close();
  if (size !== total) throw differs(`${target.guest}:${target.path}`, total, size);
  await setMode(context, target, facts.mode);
  return total;
};

const copyOut = async (from: InGuest, to: string, context: Context): Promise<number> => {
  const { signal } = context;
  const isDirectory = (await stat(to).catch(() => undefined))?.isDirectory() === true;
  const target = isDirectory ? join(to, basename(from.path)) : to;
  const partial = join(dirname(target), `.${basename(target)}.${process.pid}.partial`);
  const client = await context.client();
  const source = await GuestFile.open(client, from, 'r', signal);
  const size = await source.size();
  try {
    await using file = await open(partial, 'wx').catch((error: Error) => {
      throw usageFailure(`Cannot write '${target}': ${error.message}`);
    });
    let total = 0;
    for (;;) {
      const { bytes, eof } = await source.read();
      await file.writeFile(bytes);
      total += bytes.length;
      if (eof || bytes.length === 0) break;
    }
    // A file that the guest's kernel makes up, as those in /proc, says that it has no size.
    if (total !== size && size !== 0) throw differs(target, size, total);
    await source.close();
    const mode = await modeOf(context, from);
    if (mode !== undefined) await file.chmod(mode);
    await rename(partial, target);
    return total;
  } finally {
    await rm(partial, { force: true });
  }
};

export const copyFile = async ({ positionals }: Invocation, context: Context): Promise<number> => {
  const from = String(positionals['FROM']);
  const to = String(positionals['TO']);
  const source = inGuest(from);
  const target = inGuest(to);
  if ((source === undefined) === (target === undefined))
    throw usageFailure(
      source ? 'Both are in guests' : 'Neither is in a guest',
      "Write one as NAME:/path, as in 'roost cp notes.txt web1:/root/'.",
    );
  const bytes = source
    ? await copyOut(source, to, context)
    : await copyIn(from, target ?? { guest: '', path: '' }, context);
  if (context.json) context.printJson({ from, to, bytes });
  return 0;
};

/** Files of a microVM that are read or written piece by piece, from the beginning: handles over streams. */
import { once } from 'node:events';
import { PassThrough, type Readable } from 'node:stream';
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

type OpenFile =
  | { readonly kind: 'read'; readonly content: Readable; readonly sizeBytes: number; position: number }
  | { readonly kind: 'write'; readonly content: PassThrough; readonly written: Promise<void> };

/** Of a file that is made; its owner is root. */
const NEW_FILE_MODE = 0o644;

export class OpenFiles {
  readonly #open = new Map<number, OpenFile>();
  #last = 0;

  /** Modes `r` and `w` of fopen(3). Errors: Unsupported for others; those of the agent. */
  async open(agent: MicrovmAgent, path: string, mode: string, signal: AbortSignal): Promise<number> {
    if (mode !== 'r' && mode !== 'w')
      throw new RoostError('Unsupported', `Files of a microVM are not opened as ${mode}`, {
        data: { path, mode },
        hint: 'Open it as r or w.',
      });
    const file = mode === 'r' ? await reading(agent, path, signal) : writing(agent, path);
    this.#last += 1;
    this.#open.set(this.#last, file);
    return this.#last;
  }

  async read(
    handle: number,
    count: number,
    signal: AbortSignal,
  ): Promise<{ readonly bytes: Buffer; readonly eof: boolean }> {
    const file = this.#require(handle);
    if (file.kind !== 'read') throw wrongWay(handle, 'writing');
    const { content } = file;
    for (;;) {
      // A shorter piece than asked for comes only at the end, where read() gives all there is.
      const chunk = content.read(Math.min(count, content.readableLength || count)) as Buffer | null;
      if (chunk) {
        file.position += chunk.length;
        return { bytes: chunk, eof: false };
      }
      if (content.errored) throw content.errored;
      if (content.readableEnded || content.destroyed) return { bytes: Buffer.alloc(0), eof: true };
      await changed(content, signal);
    }
  }

  async write(handle: number, bytes: Buffer, signal: AbortSignal): Promise<number> {
    const file = this.#require(handle);
    if (file.kind !== 'write') throw wrongWay(handle, 'reading');
    // A guest that refuses has said so by now, or says so at the end.
    if (!file.content.write(bytes)) {
      const drained = once(file.content, 'drain', { signal });
      await Promise.race([drained, file.written]);
    }
    return bytes.length;
  }

  /** Where it is, or how long; it is read from its beginning, so that it goes nowhere else. Errors: Unsupported. */
  seek(handle: number, offset: number, whence: 'set' | 'cur' | 'end'): number {
    const file = this.#require(handle);
    if (file.kind === 'read' && offset === 0 && whence === 'end') return file.sizeBytes;
    if (
      file.kind === 'read' &&
      ((offset === 0 && whence === 'cur') || (whence === 'set' && offset === file.position))
    )
      return file.position;
    throw new RoostError('Unsupported', 'The init of a microVM reads and writes files from the beginning', {
      data: { handle, offset, whence },
    });
  }

  /** Resolves when the guest has all of what was written. */
  async close(handle: number, signal: AbortSignal): Promise<void> {
    const file = this.#require(handle);
    this.#open.delete(handle);
    if (file.kind === 'read') file.content.destroy();
    else {
      file.content.end();
      await waitOrAbort(file.written, signal);
    }
  }

  /** The session broke, and with it every stream. */
  lost(): void {
    this.#open.clear();
  }

  #require(handle: number): OpenFile {
    const file = this.#open.get(handle);
    if (file) return file;
    throw new RoostError('NotFound', `No file is open under handle ${handle}`, {
      data: { handle },
      hint: 'Open it again.',
    });
  }
}

/** Resolves when there may be something to read, or no more will come. */
const changed = async (content: Readable, signal: AbortSignal): Promise<void> => {
  const news = deferred<void>();
  const names = ['readable', 'end', 'error', 'close'] as const;
  for (const name of names) content.on(name, news.resolve);
  try {
    await waitOrAbort(news.promise, signal);
  } finally {
    for (const name of names) content.off(name, news.resolve);
  }
};

const reading = async (agent: MicrovmAgent, path: string, signal: AbortSignal): Promise<OpenFile> => {
  const { status, content } = await agent.readFile(path, signal);
  // Told when it is read.
  content.on('error', () => undefined);
  return { kind: 'read', content, sizeBytes: status.sizeBytes, position: 0 };
};

const writing = (agent: MicrovmAgent, path: string): OpenFile => {
  const content = new PassThrough();
  const written = agent.writeFile(path, content, { mode: NEW_FILE_MODE, uid: 0, gid: 0 }, agent.broken);
  written.catch(() => content.destroy());
  return { kind: 'write', content, written };
};

const wrongWay = (handle: number, what: string): RoostError =>
  new RoostError('InvalidArgument', `File ${handle} was opened for ${what}`, { data: { handle } });

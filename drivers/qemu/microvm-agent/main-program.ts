/**
 * The main program of a microVM while this daemon follows it: all that it writes goes into its log, and to those who are
 * attached, behind what the log has already. Nobody of them holds it up.
 */
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { RoostError } from '../../../protocol/errors.ts';
import type { ProgramEnd, ProgramLine } from '../../driver.ts';
import type { AgentProcess } from './agent-process.ts';
import { programEnd } from './program-line.ts';

/** A reader this far behind is let go rather than kept in memory. */
const MAX_BEHIND_BYTES = 1024 * 1024;
const LOG_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** One output for one who is attached: the log from a place on, then what comes. */
class AttachedOutput extends Readable {
  #wanted: (() => void) | undefined;
  #waiting: Buffer[] | undefined = [];
  #waitingBytes = 0;
  #isOver = false;

  override _read(): void {
    this.#wanted?.();
    this.#wanted = undefined;
  }

  /** Hands on the part of a file before anything else; what comes meanwhile waits. */
  async replay(path: string, from: number, to: number): Promise<void> {
    try {
      if (from < to)
        for await (const chunk of createReadStream(path, { start: from, end: to - 1 })) {
          if (this.destroyed) return;
          if (!this.push(chunk)) await new Promise<void>((resolve) => void (this.#wanted = resolve));
        }
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const chunk of waiting) this.push(chunk);
    if (this.#isOver) this.push(null);
  }

  deliver(chunk: Buffer): void {
    if (this.destroyed) return;
    if (this.#waiting) {
      this.#waiting.push(chunk);
      this.#waitingBytes += chunk.length;
    } else this.push(chunk);
    if (this.readableLength + (this.#waiting ? this.#waitingBytes : 0) > MAX_BEHIND_BYTES)
      this.destroy(farBehind());
  }

  end(): void {
    this.#isOver = true;
    if (!this.#waiting && !this.destroyed) this.push(null);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#wanted?.();
    done(error);
  }
}

export type FollowedProcess = Pick<AgentProcess, 'stdin' | 'stdout' | 'stderr' | 'wait' | 'kill' | 'resize'>;

interface Attached {
  readonly stdout: AttachedOutput;
  readonly stderr: AttachedOutput | undefined;
}

export class MainProgram {
  readonly #process: FollowedProcess;
  readonly #logPath: string;
  readonly #attached = new Set<Attached>();
  readonly #ended: Promise<ProgramEnd>;
  readonly #hasTerminal: boolean;
  #logBytes = 0;
  #outputs = 0;

  private constructor(process: FollowedProcess, logPath: string, hasTerminal: boolean, broken: AbortSignal) {
    this.#process = process;
    this.#logPath = logPath;
    this.#hasTerminal = hasTerminal;
    this.#ended = process.wait(broken).then(programEnd);
    this.#ended.catch(() => undefined);
    // A program may close its input and run on.
    process.stdin?.on('error', () => undefined);
  }

  /** Follows it until it has ended and nothing more comes of it; `done` rejects when it can't be followed any more. */
  static async follow(
    process: FollowedProcess,
    { logPath, hasTerminal, broken }: { logPath: string; hasTerminal: boolean; broken: AbortSignal },
  ): Promise<{
    readonly main: MainProgram;
    readonly ended: Promise<ProgramEnd>;
    readonly done: Promise<void>;
  }> {
    await mkdir(dirname(logPath), { recursive: true, mode: DIRECTORY_MODE });
    const log = await open(logPath, 'a', LOG_MODE);
    const main = new MainProgram(process, logPath, hasTerminal, broken);
    main.#logBytes = (await log.stat()).size;
    return { main, ended: main.#ended, done: main.#pump(log) };
  }

  /** `from`: the place in its log from which on it is wanted; its end unless given. */
  attach(from: number | undefined): ProgramLine {
    const attached: Attached = {
      stdout: new AttachedOutput(),
      stderr: this.#hasTerminal ? undefined : new AttachedOutput(),
    };
    for (const output of [attached.stdout, attached.stderr]) output?.on('error', () => undefined);
    this.#attached.add(attached);
    void attached.stdout.replay(this.#logPath, from ?? this.#logBytes, this.#logBytes);
    void attached.stderr?.replay(this.#logPath, 0, 0);
    if (this.#outputs === 0) endAll(attached);
    const process = this.#process;
    return {
      stdin: process.stdin && this.#inputOf(process.stdin),
      stdout: attached.stdout,
      stderr: attached.stderr,
      ended: this.#ended,
      kill: (number, signal) => process.kill(number, signal),
      resize: (size, signal) => process.resize(size, signal),
      release: () => {
        this.#attached.delete(attached);
        attached.stdout.destroy();
        attached.stderr?.destroy();
      },
    };
  }

  /** Everybody who is attached writes to the one input; its end is that of a pipe, and not that of a terminal. */
  #inputOf(stdin: Writable): Writable {
    return new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        if (stdin.destroyed || stdin.writableEnded) done();
        else stdin.write(chunk, () => done());
      },
      final: (done) => {
        if (!this.#hasTerminal) stdin.end();
        done();
      },
    });
  }

  async #pump(log: FileHandle): Promise<void> {
    const { stdout, stderr } = this.#process;
    const outputs = [stdout, stderr].flatMap((stream) => (stream ? [stream] : []));
    this.#outputs = outputs.length;
    try {
      await Promise.all(outputs.map((stream) => this.#pumpOutput(log, stream, stream === stderr)));
    } finally {
      this.#outputs = 0;
      for (const attached of this.#attached) endAll(attached);
      await log.close();
    }
  }

  async #pumpOutput(log: FileHandle, stream: Readable, isStderr: boolean): Promise<void> {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      await log.appendFile(chunk);
      // In one go: who attaches has it from the log, or is handed it.
      this.#logBytes += chunk.length;
      for (const { stdout, stderr } of this.#attached)
        (isStderr ? (stderr ?? stdout) : stdout).deliver(chunk);
    }
  }
}

const farBehind = (): RoostError =>
  new RoostError('Unavailable', 'The client was too far behind the program, and was let go', {
    hint: 'Attach again; what was missed is in the log of the guest.',
  });

const endAll = ({ stdout, stderr }: Attached): void => {
  stdout.end();
  stderr?.end();
};

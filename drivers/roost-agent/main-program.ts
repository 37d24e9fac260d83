/**
 * The main program of a microVM while this daemon follows it: all that it writes goes into its log, and to those who are
 * attached, behind what the log has already. Nobody of them holds it up.
 */
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Readable, Writable } from 'node:stream';
import { AttachedOutput } from '../../lib/attached-output.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { ProgramEnd, ProgramLine } from '../driver.ts';
import type { AgentProcess } from './agent-process.ts';
import { programEnd } from './program-line.ts';

const LOG_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

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
      stdout: new AttachedOutput(farBehind),
      stderr: this.#hasTerminal ? undefined : new AttachedOutput(farBehind),
    };
    this.#attached.add(attached);
    void attached.stdout.replay(this.#logFrom(from ?? this.#logBytes));
    void attached.stderr?.replay([]);
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

  /** What the log has now from that place on. */
  #logFrom(from: number): AsyncIterable<Buffer> | readonly Buffer[] {
    const to = this.#logBytes;
    return from < to ? createReadStream(this.#logPath, { start: from, end: to - 1 }) : [];
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

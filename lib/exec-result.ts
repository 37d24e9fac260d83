/** What is asked of a tool that is run to its end, and what comes of it: of lib/exec.ts and lib/run-tool.ts. */

export interface ExecOptions {
  readonly signal: AbortSignal;
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds; the tool is ended afterwards. 0: only the signal ends it. */
  readonly timeoutMs?: number;
  readonly maxOutputBytes?: number;
  /** Gets standard output as it comes, in pieces of any size. Must not throw. */
  readonly onStdout?: (text: string) => void;
  /** The same for standard error. */
  readonly onStderr?: (text: string) => void;
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** A tool ended badly: how, and what it said. */
export class ExecError extends Error {
  readonly argv: readonly string[];
  readonly exitCode: number | undefined;
  readonly terminatedBy: string | undefined;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;

  constructor(
    argv: readonly string[],
    detail: Omit<ExecError, keyof Error | 'argv' | 'wasNotFound'> & { cause: unknown },
  ) {
    const how = detail.timedOut
      ? 'did not end in time'
      : detail.terminatedBy
        ? `was ended by ${detail.terminatedBy}`
        : detail.exitCode === undefined
          ? 'could not be run'
          : `exited with ${detail.exitCode}`;
    const said = detail.stderr.trim().split('\n').slice(-3).join(' · ');
    super(`${argv[0] ?? ''} ${how}${said ? `: ${said}` : ''}`, { cause: detail.cause });
    this.name = 'ExecError';
    this.argv = argv;
    this.exitCode = detail.exitCode;
    this.terminatedBy = detail.terminatedBy;
    this.timedOut = detail.timedOut;
    this.stdout = detail.stdout;
    this.stderr = detail.stderr;
  }

  /** There is no such program, or no such directory to run it in. */
  get wasNotFound(): boolean {
    const { cause } = this;
    return cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
  }
}

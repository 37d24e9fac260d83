/**
 * The init of microVMs run here, under the sanitizers, as the agent alone: in namespaces of its own (processes, mounts,
 * network, host name), with an /etc of its own, on unix sockets in the place of a guest's ports. Needs root.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { AgentLines } from '../../drivers/roost-agent/agent-session.ts';
import { MicrovmAgent } from '../../drivers/roost-agent/microvm-agent.ts';
import { buildSanitizedInit } from '../../tools/build-native.mjs';
import { makeDirectory } from '../harness/test-directory.ts';

const passwd = 'root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:Web,,,:/srv/web:/bin/sh\n';
const group = 'root:x:0:\nweb:x:102:\nlogs:x:200:web,other\nmedia:x:201:other,web\n';

/** Binds its /etc, which nothing of the host's is to be written through, and becomes the agent. */
const setUp = 'mount --bind "$1/etc" /etc && cd "$1/work" && exec "$2" --listen "$1"';

export class NativeAgent implements AsyncDisposable {
  readonly directory: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<[number | null, string | null]>;
  readonly #agents: MicrovmAgent[] = [];
  #errors = '';

  private constructor(directory: string, child: ChildProcess) {
    this.directory = directory;
    this.#child = child;
    this.#ended = once(child, 'close') as Promise<[number | null, string | null]>;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#errors += chunk.toString();
    });
  }

  static async start(): Promise<NativeAgent> {
    const program = buildSanitizedInit();
    const directory = await makeDirectory('init');
    await mkdir(join(directory, 'etc'));
    await mkdir(join(directory, 'work'));
    await chmod(join(directory, 'work'), 0o777);
    await writeFile(join(directory, 'etc/passwd'), passwd);
    await writeFile(join(directory, 'etc/group'), group);
    const namespaces = [
      '--mount',
      '--pid',
      '--net',
      '--uts',
      '--ipc',
      '--fork',
      '--mount-proc',
      '--kill-child',
    ];
    const child = spawn('unshare', [...namespaces, 'sh', '-c', setUp, 'sh', directory, program], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const agent = new NativeAgent(directory, child);
    const listening = once(child.stdout, 'data');
    if ((await Promise.race([listening, agent.#ended.then(() => undefined)])) === undefined) {
      throw new Error(`the agent did not start: ${agent.#errors}`);
    }
    return agent;
  }

  /** The place in which the agent's programs and files are. */
  path(name: string): string {
    return join(this.directory, 'work', name);
  }

  /** A new session; takes the place of the one before. */
  async connect(): Promise<MicrovmAgent> {
    const agent = await MicrovmAgent.connect(this.sockets, AbortSignal.timeout(20_000));
    this.#agents.push(agent);
    return agent;
  }

  get sockets(): { readonly control: string; readonly streams: string } {
    return { control: join(this.directory, 'control'), streams: join(this.directory, 'streams') };
  }

  /** Two lines without a session. */
  async lines(): Promise<AgentLines & { readonly control: Socket; readonly streams: Socket }> {
    const [control, streams] = await Promise.all(
      [this.sockets.control, this.sockets.streams].map(async (path) => {
        const line = connect({ path });
        await once(line, 'connect');
        return line;
      }),
    );
    if (!control || !streams) throw new Error('two paths gave no two lines');
    return { control, streams };
  }

  /** Resident memory of the agent itself, in bytes. */
  async residentBytes(): Promise<number> {
    const children = await readFile(`/proc/${this.#child.pid}/task/${this.#child.pid}/children`, 'utf8');
    const status = await readFile(`/proc/${children.trim().split(' ')[0]}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  /** Resolves when it has ended by itself: how, and what its sanitizers said. */
  async ended(): Promise<{ readonly exitCode: number | null; readonly errors: string }> {
    const [exitCode] = await this.#ended;
    return { exitCode, errors: this.#errors };
  }

  /** Ends it as the kernel does when memory is short, and removes what it had. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Ends it in order, so that the sanitizers look for leaks, and fails if they have found anything. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) {
      const agent = await this.connect();
      await agent.power('off', 5_000, AbortSignal.timeout(20_000));
    }
    const { exitCode, errors } = await this.ended();
    for (const agent of this.#agents) agent.close();
    await rm(this.directory, { recursive: true, force: true });
    if (exitCode !== 0 || errors !== '') throw new Error(`the agent ended with ${exitCode}: ${errors}`);
  }
}

/** What comes next, up to a line's end; leaves the rest for whoever reads on. */
export const nextLine = async (stream: Readable | undefined): Promise<string> => {
  let text = '';
  if (!stream) throw new Error('there is no such stream');
  while (!text.endsWith('\n')) {
    const chunk = stream.read() as Buffer | null;
    if (chunk === null) await once(stream, 'readable');
    else text += String(chunk);
  }
  return text;
};

export const textOf = async (stream: Readable | undefined): Promise<string> => {
  let text = '';
  for await (const chunk of stream ?? []) text += String(chunk);
  return text;
};

let lastProcess = 0;

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | undefined;
  readonly signal: number | undefined;
}

type Options = Partial<Omit<Parameters<MicrovmAgent['exec']>[0], 'argv'>> & { readonly input?: string };

/** Runs a program to its end. */
export const run = async (
  agent: MicrovmAgent,
  argv: readonly [string, ...string[]],
  { input, ...options }: Options = {},
): Promise<RunResult> => {
  const never = new AbortController().signal;
  lastProcess += 1;
  const program = await agent.exec(
    {
      process: lastProcess,
      argv,
      stdout: true,
      stderr: options.terminal === undefined,
      stdin: input !== undefined,
      ...options,
    },
    never,
  );
  program.stdin?.end(input);
  const [stdout, stderr, end] = await Promise.all([
    textOf(program.stdout),
    textOf(program.stderr),
    program.wait(never),
  ]);
  await program.release(never);
  return { stdout, stderr, exitCode: end.exitCode, signal: end.signal };
};

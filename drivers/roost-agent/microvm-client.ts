/**
 * Our own init in one guest, as the daemon asks it: the agent of docs/guest-protocol.md behind the contract's
 * `GuestAgent` and `GuestInit`. The session is made when it is first needed and made anew when it has broken; programs
 * in the guest outlive it. The main program is followed from session to session: its output goes into a log, its end is
 * told once.
 */
import { randomBytes } from 'node:crypto';
import { deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import type { Log } from '../../lib/log.ts';
import type { ExecRequest, ExecStatus, GuestProcess, ProgramRequest } from '../../protocol/agent.ts';
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { GuestAgent, GuestInit, GuestSetup, Observer, ProgramEnd, ProgramLine } from '../driver.ts';
import { AgentExecs } from './agent-execs.ts';
import type { AgentProcess } from './agent-process.ts';
import type { Greeting } from './agent-session.ts';
import { MainProgram } from './main-program.ts';
import { MicrovmAgent, type ProcessInGuest } from './microvm-agent.ts';
import { mountFilesystems } from './mount-filesystems.ts';
import { OpenFiles } from './open-files.ts';
import { prepareTemplate } from './prepare-template.ts';
import { readProcesses } from './process-list.ts';
import { openProgramLine } from './program-line.ts';
import { rehearse } from './rehearse.ts';
import { setIdentity, tellWhoItIs } from './tell-identity.ts';

/** Until somebody is attached who has one. */
const DEFAULT_TERMINAL = { rows: 24, columns: 80 } as const;
/** The main program's number; others count from above it. */
const MAIN = 1;
const SEED_BYTES = 64;
/** How long the guest's programs have to end when it powers off. */
const POWER_OFF_GRACE_MS = 10_000;
/** How long a guest may take to let go when the daemon does. */
const LEAVE_MS = 1_000;
/** The agent thaws by itself after it; the daemon thaws earlier. */
const LONGEST_FREEZE_MS = 600_000;

export interface MicrovmClientOptions {
  readonly paths: { readonly control: string; readonly streams: string };
  /** Where the main program's output goes, appended. */
  readonly programLog: string;
  readonly log: Log;
  /** Of programs that name none, until the guest is told its own. */
  readonly environment?: readonly string[];
  /** Whether it is known at all times if the guest has the channel open: then nobody is asked while it has not. */
  readonly knowsWhetherOpen?: boolean;
}

export class MicrovmClient implements GuestAgent, GuestInit {
  readonly #options: MicrovmClientOptions;
  readonly #closing = new AbortController();
  readonly #execs = new AgentExecs();
  readonly #files = new OpenFiles();
  #opened = deferred<void>();
  #session: Promise<MicrovmAgent> | undefined;
  #isOpen = false;
  #following = false;
  /** Nobody is to follow the main program in the session that there is. */
  #isLeaving = false;
  /** Resolves once what was followed of the main program has all been read. */
  #pumped: Promise<void> = Promise.resolve();
  /** The main program, once it is followed. */
  #main = deferred<MainProgram>();
  #environment: readonly string[];
  /** Told of the end of the main program, once for each daemon that has seen the guest. */
  onProgramEnded: (end: ProgramEnd) => void = () => undefined;

  constructor(options: MicrovmClientOptions) {
    this.#options = options;
    this.#environment = options.environment ?? [];
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** An event, or QEMU's answer, about the guest's end of the control channel. */
  portChanged(isOpen: boolean): void {
    if (this.#isOpen === isOpen) return;
    this.#isOpen = isOpen;
    if (isOpen) this.#opened.resolve();
    else this.#opened = deferred<void>();
  }

  /** The same observer, behind this client: whoever is told of the agent can ask it already. */
  listening(observe: Observer): Observer {
    return (observation, cursor) => {
      if (observation.kind === 'agent') this.portChanged(observation.isOpen);
      observe(observation, cursor);
    };
  }

  /** Lets go of the guest with nothing of its main program on the way: that waits for the next daemon. */
  async leave(): Promise<void> {
    if (this.#following && this.#session) {
      using limit = deadline(LEAVE_MS, this.#closing.signal);
      // One that stands still greets nobody: there may be no session for as long as it lives.
      await waitOrAbort(this.#session, limit.signal)
        .then((agent) => this.#leaveMain(agent, limit.signal))
        .catch(() => undefined);
    }
    this.close();
  }

  /** Lets go of the guest; programs in it run on. May be called twice. */
  close(): void {
    this.#closing.abort(letGo());
    void this.#session?.then(
      (agent) => agent.close(),
      () => undefined,
    );
    this.#session = undefined;
  }

  // GuestInit

  async setUp(...[setup, signal, onItself]: Parameters<GuestInit['setUp']>): Promise<void> {
    const agent = await this.#makeItself(setup, signal);
    onItself();
    this.#environment = setup.program.environment;
    const mayRun = setup.fork?.runs ?? true;
    if (mayRun && (await isRunning(agent, signal))) this.followProgram();
    else {
      // Last of all, so that nothing of what the guest is told is written to the host.
      await mountFilesystems(agent, setup, signal);
      await this.#startMain(agent, setup.program, signal);
    }
  }

  async prepare(setup: GuestSetup, signal: AbortSignal): Promise<void> {
    const agent = await this.#makeItself(setup, signal);
    await rehearse(agent, this.#execs.number(), signal);
  }

  async prepareForForks(...[request, signal]: Parameters<GuestInit['prepareForForks']>): Promise<void> {
    await prepareTemplate(await this.#agentThatIsUp({}, signal), request, this.#execs.number(), signal);
  }

  async leaveProgram(token: string, signal: AbortSignal): Promise<void> {
    const agent = await this.#agent(signal);
    await agent.setIdentity({ token: Buffer.from(token) }, signal);
    await this.#leaveMain(agent, signal);
    agent.close();
  }

  async signalProgram(signalNumber: number, signal: AbortSignal): Promise<void> {
    const agent = await this.#agent(signal);
    await agent.signalProcess(MAIN, signalNumber, signal);
  }

  async attachProgram(fromOffset: number | undefined, signal: AbortSignal): Promise<ProgramLine> {
    return (await waitOrAbort(this.#main.promise, signal)).attach(fromOffset);
  }

  followProgram(): void {
    this.#isLeaving = false;
    void this.#followMain().catch((error: unknown) => this.#notFollowed(error));
  }

  // GuestAgent

  async ping(signal: AbortSignal): Promise<void> {
    await (await this.#agent(signal)).ping(signal);
  }

  async info(signal: AbortSignal): ReturnType<GuestAgent['info']> {
    const { facts } = await this.#agent(signal);
    return { version: facts.agent, supportedCommands: [...SUPPORTED] };
  }

  interfaces(_signal: AbortSignal): ReturnType<GuestAgent['interfaces']> {
    return Promise.reject(unsupported('tells no addresses; they are those that it was given'));
  }

  async exec(request: ExecRequest, signal: AbortSignal): Promise<number> {
    return await this.#execs.start(
      await this.#agent(signal),
      { environment: this.#environment, ...request },
      signal,
    );
  }

  execStatus(pid: number): Promise<ExecStatus> {
    return this.#execs.status(pid);
  }

  async openProgram(request: ProgramRequest, signal: AbortSignal): Promise<ProgramLine> {
    const agent = await this.#agent(signal);
    const number = this.#execs.number();
    return await openProgramLine(agent, number, { environment: this.#environment, ...request }, signal).catch(
      (error: unknown) => {
        throw cannotRun(request.path, error);
      },
    );
  }

  async processes(signal: AbortSignal): Promise<readonly GuestProcess[]> {
    return await readProcesses(await this.#agent(signal), signal);
  }

  async openFile(path: string, mode: string, signal: AbortSignal): Promise<number> {
    return await this.#files.open(await this.#agent(signal), path, mode, signal);
  }

  readFile(
    ...[handle, count, signal]: Parameters<GuestAgent['readFile']>
  ): ReturnType<GuestAgent['readFile']> {
    return this.#files.read(handle, count, signal);
  }

  writeFile(...[handle, bytes, signal]: Parameters<GuestAgent['writeFile']>): Promise<number> {
    return this.#files.write(handle, bytes, signal);
  }

  async seekFile(...[handle, offset, whence]: Parameters<GuestAgent['seekFile']>): Promise<number> {
    return this.#files.seek(handle, offset, whence);
  }

  closeFile(handle: number, signal: AbortSignal): Promise<void> {
    return this.#files.close(handle, signal);
  }

  async freeze(signal: AbortSignal): Promise<number> {
    return await (await this.#agent(signal)).freeze(LONGEST_FREEZE_MS, signal);
  }

  async thaw(signal: AbortSignal): Promise<number> {
    return await (await this.#agent(signal)).thaw(signal);
  }

  async freezeStatus(signal: AbortSignal): ReturnType<GuestAgent['freezeStatus']> {
    return (await (await this.#agent(signal)).inspect(signal)).frozen ? 'frozen' : 'thawed';
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    await (await this.#agent(signal)).power('off', POWER_OFF_GRACE_MS, signal);
  }

  // Inside

  async #agentThatIsUp(greeting: Greeting, signal: AbortSignal): Promise<MicrovmAgent> {
    await waitOrAbort(this.#opened.promise, signal);
    const agent = await this.#agent(signal, greeting);
    if (agent.facts.failure !== undefined) throw notUp(agent.facts.failure);
    return agent;
  }

  async #makeItself(setup: GuestSetup, signal: AbortSignal): Promise<MicrovmAgent> {
    const { fork, isPrepared = false } = setup;
    const agent = await this.#agentThatIsUp({ isClean: fork?.runs === false }, signal);
    if (fork) requireToken(agent, fork.token);
    // First of all: until then its random bytes are those of every other fork.
    if (!isPrepared) await agent.seed(randomBytes(SEED_BYTES), signal);
    // Told one after the other and awaited together.
    const told = [agent.setClock(BigInt(Date.now()) * 1_000_000n, signal)];
    if (isPrepared) told.push(setIdentity(agent, setup, signal));
    else if (!fork?.isItself) told.push(...tellWhoItIs(agent, setup, signal));
    for (const result of await Promise.allSettled(told))
      if (result.status === 'rejected') throw result.reason;
    return agent;
  }

  /** The session; a broken one is made anew. */
  async #agent(signal: AbortSignal, greeting: Greeting = {}): Promise<MicrovmAgent> {
    this.#closing.signal.throwIfAborted();
    if (this.#options.knowsWhetherOpen === true && !this.#isOpen) throw notOpen();
    this.#session ??= this.#connect(greeting);
    return await waitOrAbort(this.#session, signal);
  }

  async #connect(greeting: Greeting): Promise<MicrovmAgent> {
    try {
      const agent = await MicrovmAgent.connect(this.#options.paths, this.#closing.signal, greeting);
      agent.broken.addEventListener('abort', () => this.#lost(agent), { once: true });
      return agent;
    } catch (error) {
      this.#session = undefined;
      throw error;
    }
  }

  #lost(agent: MicrovmAgent): void {
    this.#session = undefined;
    this.#main = deferred<MainProgram>();
    this.#execs.lost();
    this.#files.lost();
    if (!this.#closing.signal.aborted)
      this.#options.log.debug(
        { err: agent.broken.reason as unknown },
        "the session with a guest's init broke",
      );
  }

  async #leaveMain(agent: MicrovmAgent, signal: AbortSignal): Promise<void> {
    this.#isLeaving = true;
    try {
      await agent.detach(MAIN, signal);
      // All that was sent of it is in its log then.
      await waitOrAbort(this.#pumped, signal);
    } catch (error) {
      if (!isNothingToLeave(error)) throw error;
    }
  }

  async #startMain(agent: MicrovmAgent, program: GuestSetup['program'], signal: AbortSignal): Promise<void> {
    const [first = '', ...rest] = program.argv;
    const main = await agent
      .exec(
        {
          process: MAIN,
          argv: [first, ...rest],
          environment: program.environment,
          ...(program.workingDirectory === undefined ? {} : { directory: program.workingDirectory }),
          ...(program.user === undefined ? {} : { user: program.user }),
          ...(program.terminal ? { terminal: DEFAULT_TERMINAL } : {}),
          stdin: program.interactive ?? false,
          stdout: true,
          stderr: !program.terminal,
        },
        signal,
      )
      .catch((error: unknown) => {
        throw cannotRun(first, error);
      });
    this.#following = true;
    void this.#pump(agent, main, program.terminal ?? false)
      .catch((error: unknown) => this.#notFollowed(error))
      .finally(() => {
        this.#following = false;
      });
  }

  /** Attaches to the main program in whatever session there is; after a session that broke in the next one. */
  async #followMain(): Promise<void> {
    if (this.#following) return;
    this.#following = true;
    try {
      const { signal } = this.#closing;
      await waitOrAbort(this.#opened.promise, signal);
      const agent = await this.#agent(signal);
      const found = await mainOf(agent, signal);
      if (!found) return;
      const main = await attachMain(agent, !found.terminal, signal);
      await this.#pump(agent, main, found.terminal);
    } finally {
      this.#following = false;
    }
  }

  async #pump(agent: MicrovmAgent, process: AgentProcess, hasTerminal: boolean): Promise<void> {
    const { broken } = agent;
    const logPath = this.#options.programLog;
    const { main, ended, done } = await MainProgram.follow(process, { logPath, hasTerminal, broken });
    this.#main.resolve(main);
    // Its failure is that of the end as well, or is told behind it.
    this.#pumped = done.catch(() => undefined);
    // What it left running may keep its outputs open: its end is its own.
    this.onProgramEnded(await waitOrAbort(ended, this.#closing.signal));
    await done;
  }

  #notFollowed(error: unknown): void {
    if (this.#closing.signal.aborted || this.#isLeaving) return;
    this.#options.log.warn({ err: error }, "a guest's main program cannot be followed at the moment");
  }
}

const SUPPORTED = [
  'guest-exec',
  'guest-exec-status',
  'guest-file-open',
  'guest-file-read',
  'guest-file-write',
  'guest-file-close',
  'guest-fsfreeze-freeze',
  'guest-fsfreeze-thaw',
  'guest-fsfreeze-status',
  'guest-info',
  'guest-ping',
  'guest-shutdown',
] as const;

/** Of an init that an earlier Roost built, which does not know the request, or a guest that has no such program any more. */
const isNothingToLeave = (error: unknown): boolean =>
  isRoostError(error) && (error.data?.['errno'] === 'ENOSYS' || error.data?.['errno'] === 'ESRCH');

/** Whether the main program runs, or has run. */
const isRunning = async (agent: MicrovmAgent, signal: AbortSignal): Promise<boolean> =>
  (await mainOf(agent, signal)) !== undefined;

const mainOf = async (agent: MicrovmAgent, signal: AbortSignal): Promise<ProcessInGuest | undefined> =>
  (await agent.processes(signal)).find(({ process }) => process === MAIN);

/** Its input is told of by nobody, so it is tried. */
const attachMain = async (
  agent: MicrovmAgent,
  stderr: boolean,
  signal: AbortSignal,
): Promise<AgentProcess> => {
  const outputs = { process: MAIN, stdout: true, stderr };
  try {
    return await agent.attach({ ...outputs, stdin: true }, signal);
  } catch (error) {
    if (!isRoostError(error) || error.data?.['errno'] !== 'EINVAL') throw error;
    return await agent.attach(outputs, signal);
  }
};

/** One that lost its memory boots afresh, or is another's: it answers as well. */
const requireToken = (agent: MicrovmAgent, token: string): void => {
  if (agent.facts.token?.equals(Buffer.from(token))) return;
  throw new RoostError('HostError', 'The guest is no fork of its template: it does not know its token', {
    hint: 'Its memory did not arrive. Start it again: it boots by itself.',
  });
};

const letGo = (): RoostError =>
  new RoostError('Unavailable', 'The guest was let go of', { hint: 'Try again.' });

const notUp = (why: string): RoostError =>
  new RoostError('FailedPrecondition', `The guest did not come up: ${why}`, {
    data: { said: why },
    hint: 'Look at its console: roost logs --console.',
  });

const unsupported = (what: string): RoostError =>
  new RoostError('Unsupported', `The init of a microVM ${what}`, { data: { agent: 'roost-init' } });

/** Why a program cannot be executed, in the words of the guest. */
const cannotRun = (program: string, error: unknown): unknown =>
  isRoostError(error) && error.data?.['errno'] !== undefined
    ? new RoostError('FailedPrecondition', `The program ${program} cannot be run: ${error.message}`, {
        cause: error,
        data: { ...error.data, program },
        hint: 'See that the image has it, and that it may be executed; `image show` tells what the image runs.',
      })
    : error;

const notOpen = (): RoostError =>
  new RoostError('Unavailable', "No agent has the guest's channel open", {
    hint: 'Wait until the guest has booted; `show` tells whether it has.',
  });

/**
 * The agent of a fake guest: files and programs in memory. A test opens and closes its channel, makes it silent, and
 * says what programs there are. `FakeAgent` lives as long as its process, as a guest's own agent does.
 */
import { waitOrAbort } from '../../lib/abort.ts';
import type { AgentInterface, ExecRequest, ExecStatus } from '../../protocol/agent.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestAgent } from '../driver.ts';

/** What a program of a fake guest does: its output and exit code at once. */
export type FakeProgram = (request: ExecRequest) => Omit<ExecStatus, 'exited'>;

const encoded = (text: string): string => Buffer.from(text).toString('base64');

interface OpenFile {
  readonly path: string;
  place: number;
}

export class FakeAgent implements GuestAgent {
  isOpen = false;
  /** Answers nothing while true. */
  silent = false;
  frozen = false;
  /** How often a program is still said to run. */
  lingering = 0;
  /** How often it was asked to freeze, and to thaw. */
  readonly freezes = { frozen: 0, thawed: 0 };
  readonly files = new Map<string, Buffer>();
  readonly programs = new Map<string, FakeProgram>([
    ['echo', ({ arg }) => ({ exitcode: 0, outData: encoded(`${arg.join(' ')}\n`) })],
    ['cat', ({ inputData = '' }) => ({ exitcode: 0, outData: inputData })],
    ['false', () => ({ exitcode: 1 })],
  ]);
  reported: AgentInterface[] = [
    { name: 'lo', ipAddresses: [{ ipAddress: '127.0.0.1', ipAddressType: 'ipv4', prefix: 8 }] },
  ];
  readonly #powerOff: () => void;
  readonly #open = new Map<number, OpenFile>();
  readonly #exited = new Map<number, ExecStatus>();
  #next = 1;

  constructor(powerOff: () => void) {
    this.#powerOff = powerOff;
  }

  /** Handles that nobody has closed. */
  get openFiles(): number {
    return this.#open.size;
  }

  async ping(signal: AbortSignal): Promise<void> {
    await this.#asked('guest-ping', signal, true);
  }

  async info(signal: AbortSignal): ReturnType<GuestAgent['info']> {
    await this.#asked('guest-info', signal, true);
    return { version: 'fake', supportedCommands: ['guest-ping', 'guest-fsfreeze-status'] };
  }

  async interfaces(signal: AbortSignal): ReturnType<GuestAgent['interfaces']> {
    await this.#asked('guest-network-get-interfaces', signal);
    return this.reported;
  }

  async exec(request: ExecRequest, signal: AbortSignal): Promise<number> {
    await this.#asked('guest-exec', signal);
    const program = this.programs.get(request.path);
    if (!program) throw refused(`No such file or directory: ${request.path}`);
    const pid = this.#number();
    this.#exited.set(pid, { exited: true, ...program(request) });
    return pid;
  }

  async execStatus(pid: number, signal: AbortSignal): Promise<ExecStatus> {
    await this.#asked('guest-exec-status', signal);
    const status = this.#exited.get(pid);
    if (!status) throw refused(`PID ${pid} does not exist`);
    if (this.lingering > 0) {
      this.lingering -= 1;
      return { exited: false };
    }
    this.#exited.delete(pid);
    return status;
  }

  async openFile(path: string, mode: string, signal: AbortSignal): Promise<number> {
    await this.#asked('guest-file-open', signal);
    if (mode.startsWith('w')) this.files.set(path, Buffer.alloc(0));
    if (!this.files.has(path)) throw refused(`failed to open file '${path}'`);
    const handle = this.#number();
    this.#open.set(handle, { path, place: 0 });
    return handle;
  }

  async readFile(...[handle, count, signal]: Parameters<GuestAgent['readFile']>) {
    await this.#asked('guest-file-read', signal);
    const file = this.#file(handle);
    const content = this.files.get(file.path) ?? Buffer.alloc(0);
    const bytes = Buffer.from(content.subarray(file.place, file.place + count));
    file.place += bytes.length;
    return { bytes, eof: bytes.length < count };
  }

  async writeFile(...[handle, bytes, signal]: Parameters<GuestAgent['writeFile']>): Promise<number> {
    await this.#asked('guest-file-write', signal);
    const file = this.#file(handle);
    const content = this.files.get(file.path) ?? Buffer.alloc(0);
    const before = content.subarray(0, file.place);
    const after = content.subarray(file.place + bytes.length);
    this.files.set(file.path, Buffer.concat([before, bytes, after]));
    file.place += bytes.length;
    return bytes.length;
  }

  async seekFile(...[handle, offset, whence, signal]: Parameters<GuestAgent['seekFile']>): Promise<number> {
    await this.#asked('guest-file-seek', signal);
    const file = this.#file(handle);
    const size = this.files.get(file.path)?.length ?? 0;
    const from = { set: 0, cur: file.place, end: size }[whence];
    file.place = from + offset;
    return file.place;
  }

  async closeFile(handle: number, signal: AbortSignal): Promise<void> {
    await this.#asked('guest-file-close', signal);
    this.#file(handle);
    this.#open.delete(handle);
  }

  async freeze(signal: AbortSignal): Promise<number> {
    await this.#asked('guest-fsfreeze-freeze', signal);
    this.frozen = true;
    this.freezes.frozen += 1;
    return 1;
  }

  async thaw(signal: AbortSignal): Promise<number> {
    await this.#asked('guest-fsfreeze-thaw', signal, true);
    const thawed = this.frozen ? 1 : 0;
    this.frozen = false;
    this.freezes.thawed += thawed;
    return thawed;
  }

  async freezeStatus(signal: AbortSignal): ReturnType<GuestAgent['freezeStatus']> {
    await this.#asked('guest-fsfreeze-status', signal, true);
    return this.frozen ? 'frozen' : 'thawed';
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    await this.#asked('guest-shutdown', signal);
    this.#powerOff();
  }

  /** Before every command. A frozen guest's agent does only what cannot hang. */
  async #asked(command: string, signal: AbortSignal, evenFrozen = false): Promise<void> {
    signal.throwIfAborted();
    if (!this.isOpen) {
      throw new RoostError('Unavailable', "No agent in the guest has the agent's channel open", {
        hint: 'Start it.',
      });
    }
    if (this.silent) await waitOrAbort(new Promise<never>(() => undefined), signal);
    if (this.frozen && !evenFrozen) throw refused(`The command ${command} has been disabled`);
  }

  #file(handle: number): OpenFile {
    const file = this.#open.get(handle);
    if (!file) throw refused(`handle ${handle} has not been found`);
    return file;
  }

  #number(): number {
    this.#next += 1;
    return this.#next;
  }
}

const refused = (said: string): RoostError =>
  new RoostError('FailedPrecondition', `The guest's agent refused: ${said}`, { data: { said } });

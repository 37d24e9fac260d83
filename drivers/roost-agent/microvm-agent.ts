/**
 * The agent of a microVM as the driver uses it: one session, and every request of the protocol as a method. What it
 * returns was said by a guest: bounded, of the right form, and no more to be believed than that.
 */
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { connectUnixSocket } from '../../lib/connect-unix-socket.ts';
import { RoostError } from '../../protocol/errors.ts';
import { guestText } from '../qemu/agent/agent-types.ts';
import { agentGone, nonsense } from './agent-errors.ts';
import {
  type FileAttributes,
  type FileStatus,
  listGuestDirectory,
  makeGuestDirectory,
  makeGuestLink,
  readGuestFile,
  statGuestFile,
  type WriteFileOptions,
  writeGuestFile,
} from './agent-files.ts';
import {
  AgentProcess,
  type AttachToProcess,
  type ExecInGuest,
  type ProcessEnd,
  processEnd,
} from './agent-process.ts';
import { type AgentFacts, type AgentLines, AgentSession, type Greeting } from './agent-session.ts';
import { FieldError, FieldReader, FieldWriter, required, tags } from './fields.ts';

/** What the guest says of itself. */
export interface GuestFacts {
  readonly kernelRelease: string;
  readonly hostname: string;
  readonly uptimeMs: number;
  readonly timeNs: bigint;
  readonly memoryTotalBytes: number | undefined;
  readonly memoryAvailableBytes: number | undefined;
  readonly frozen: boolean;
  readonly token: Buffer | undefined;
}

export interface ProcessInGuest {
  readonly process: number;
  readonly pid: number;
  readonly terminal: boolean;
  /** Undefined while it runs. */
  readonly end: ProcessEnd | undefined;
}

export interface Identity {
  readonly hostname?: string;
  /** 32 lower-case hexadecimal digits (machine-id(5)). */
  readonly machineId?: string;
  /** At most 64 bytes; comes back with the next greeting, in a fork of the guest too. */
  readonly token?: Uint8Array;
  /** Written at the same time: /etc/resolv.conf, and the lines of /etc/hosts after `localhost`, of which there is one. */
  readonly names?: { readonly resolver: Resolver; readonly hosts: readonly string[] };
}

/** An interface by its name or the hardware address it has now. */
export type WhichLink = { readonly name: string } | { readonly mac: string };

export interface LinkSettings {
  readonly newMac?: string;
  readonly mtu?: number;
  readonly up?: boolean;
  /** `192.0.2.7/24`, `2001:db8::7/64`. */
  readonly addresses?: readonly string[];
  /** Destination, and the gateway unless it is on the link. */
  readonly routes?: readonly { readonly destination: string; readonly gateway?: string }[];
  /** Addresses and routes that the interface has are forgotten first. */
  readonly replace?: boolean;
}

export interface Resolver {
  readonly nameservers: readonly string[];
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

export interface GuestMount {
  readonly source: string;
  readonly target: string;
  readonly fstype: string;
  /** MS_… of mount(2). */
  readonly flags?: number;
  readonly options?: string;
}

/** For what waits for the guest's disks. */
const DISK_TIMEOUT_MS = 120_000;

export class MicrovmAgent {
  readonly facts: AgentFacts;
  readonly #session: AgentSession;

  private constructor(session: AgentSession, facts: AgentFacts) {
    this.#session = session;
    this.facts = facts;
  }

  /** Greets the agent behind two lines, which become the agent's. Rejects with RoostError, or the signal's reason. */
  static async open(lines: AgentLines, signal: AbortSignal, greeting: Greeting = {}): Promise<MicrovmAgent> {
    const { session, facts } = await AgentSession.open(lines, signal, greeting);
    return new MicrovmAgent(session, facts);
  }

  /** The same behind two unix sockets, the host's ends of virtio-serial ports. */
  static async connect(
    paths: { readonly control: string; readonly streams: string },
    signal: AbortSignal,
    greeting: Greeting = {},
  ): Promise<MicrovmAgent> {
    const control = await openLine(paths.control, signal);
    try {
      return await MicrovmAgent.open(
        { control, streams: await openLine(paths.streams, signal) },
        signal,
        greeting,
      );
    } catch (error) {
      control.destroy();
      throw error;
    }
  }

  /** Aborts with the reason when the agent is out of reach. */
  get broken(): AbortSignal {
    return this.#session.broken;
  }

  /** Lets go of the guest; programs in it run on, and a later session can take them up. */
  close(): void {
    this.#session.break(agentGone('the guest was let go of'));
  }

  /** Resolves with a round trip. */
  async ping(signal: AbortSignal): Promise<void> {
    const echo = Buffer.from('roost');
    const said = await this.#ask('ping', new FieldWriter().bytes('echo', echo), signal);
    if (!said.bytes('echo', 64)?.equals(echo)) throw nonsense('ping');
  }

  async inspect(signal: AbortSignal): Promise<GuestFacts> {
    return await this.#read('inspect', new FieldWriter(), signal, (said) => ({
      kernelRelease: guestText(required(said.text('release', 128), 'release'), 128),
      hostname: guestText(required(said.text('hostname', 128), 'hostname'), 128),
      uptimeMs: required(said.size('uptime'), 'uptime'),
      timeNs: required(said.u64('time'), 'time'),
      memoryTotalBytes: said.size('memoryTotal'),
      memoryAvailableBytes: said.size('memoryAvailable'),
      frozen: said.u8('frozen') === 1,
      token: said.bytes('token', 64),
    }));
  }

  async exec(request: ExecInGuest, signal: AbortSignal): Promise<AgentProcess> {
    return await AgentProcess.exec(this.#session, request, signal);
  }

  async attach(request: AttachToProcess, signal: AbortSignal): Promise<AgentProcess> {
    return await AgentProcess.attach(this.#session, request, signal);
  }

  /** Lets go of the streams of a program: each output ends behind all that was sent of it. */
  async detach(process: number, signal: AbortSignal): Promise<void> {
    await this.#ask('detach', new FieldWriter().u32('process', process), signal);
  }

  /** Sends a program of any session a signal, by number. */
  async signalProcess(process: number, number: number, signal: AbortSignal): Promise<void> {
    await this.#ask('signal', new FieldWriter().u32('process', process).u32('signal', number), signal);
  }

  /** All that were started by this and earlier sessions and are not released. */
  async processes(signal: AbortSignal): Promise<readonly ProcessInGuest[]> {
    return await this.#read('processes', new FieldWriter(), signal, (said) => {
      const groups: FieldReader[] = [];
      const starts = said.all.flatMap((field, index) => (field.tag === tags.process ? [index] : []));
      for (const [at, start] of starts.entries()) {
        groups.push(new FieldReader(said.all.slice(start, starts[at + 1])));
      }
      return groups.map((one) => ({
        process: required(one.u32('process'), 'process'),
        pid: required(one.u32('pid'), 'pid'),
        terminal: one.has('terminal'),
        end: one.has('exitCode') || one.has('exitSignal') ? processEnd(one) : undefined,
      }));
    });
  }

  async readFile(
    path: string,
    signal: AbortSignal,
  ): Promise<{ readonly status: FileStatus; readonly content: Readable }> {
    return await readGuestFile(this.#session, path, signal);
  }

  async writeFile(
    path: string,
    content: Readable,
    options: WriteFileOptions,
    signal: AbortSignal,
  ): Promise<void> {
    await writeGuestFile(this.#session, path, content, options, signal);
  }

  async stat(path: string, signal: AbortSignal): Promise<FileStatus> {
    return await statGuestFile(this.#session, path, signal);
  }

  async list(path: string, signal: AbortSignal): Promise<readonly Buffer[]> {
    return await listGuestDirectory(this.#session, path, signal);
  }

  async makeDirectory(
    path: string,
    options: FileAttributes & { readonly parents?: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    await makeGuestDirectory(this.#session, path, options, signal);
  }

  async makeLink(
    path: string,
    target: string,
    owner: Pick<FileAttributes, 'uid' | 'gid'>,
    signal: AbortSignal,
  ): Promise<void> {
    await makeGuestLink(this.#session, path, target, owner, signal);
  }

  /** Gives the kernel's random generator new bytes (32 to 512) and has it use them at once. */
  async seed(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#ask('seed', new FieldWriter().bytes('seed', bytes), signal);
  }

  /** Nanoseconds since the epoch. */
  async setClock(timeNs: bigint, signal: AbortSignal): Promise<void> {
    await this.#ask('setClock', new FieldWriter().u64('time', timeNs), signal);
  }

  async setIdentity({ hostname, machineId, token, names }: Identity, signal: AbortSignal): Promise<void> {
    const fields = new FieldWriter().text('hostname', hostname).text('machineId', machineId);
    fields.bytes('token', token);
    if (names) {
      const { nameservers, search, options } = names.resolver;
      fields.texts('nameserver', nameservers).texts('search', search).texts('option', options);
      fields.texts('host', names.hosts);
    }
    await this.#ask('setIdentity', fields, signal);
  }

  /** Resolves with the interface's name, and whether it has its carrier. */
  async setLink(
    which: WhichLink,
    settings: LinkSettings,
    signal: AbortSignal,
  ): Promise<{ readonly name: string; readonly running: boolean }> {
    const routes = settings.routes?.map(({ destination, gateway }) =>
      gateway === undefined ? destination : `${destination} ${gateway}`,
    );
    const fields = linkFields(which)
      .bytes('newMac', settings.newMac === undefined ? undefined : macBytes(settings.newMac))
      .u32('mtu', settings.mtu)
      .u8('up', settings.up === undefined ? undefined : Number(settings.up))
      .texts('address', settings.addresses)
      .texts('route', routes)
      .flag('replace', settings.replace);
    return await this.#read('setLink', fields, signal, (said) => ({
      name: guestText(required(said.text('interface', 32), 'interface'), 32),
      running: said.u8('up') === 1,
    }));
  }

  /** Resolves when the interface has its carrier. */
  async waitForLink(which: WhichLink, timeoutMs: number, signal: AbortSignal): Promise<void> {
    await this.#session.call('waitLink', linkFields(which).u32('timeout', timeoutMs), signal, {
      timeoutMs: Infinity,
    });
  }

  /** Replaces /etc/resolv.conf. */
  async setResolver({ nameservers, search, options }: Resolver, signal: AbortSignal): Promise<void> {
    const fields = new FieldWriter().texts('nameserver', nameservers).texts('search', search);
    await this.#ask('setResolver', fields.texts('option', options), signal);
  }

  /** Replaces /etc/hosts: `localhost`, then these lines (hosts(5)). */
  async setHosts(lines: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#ask('setHosts', new FieldWriter().texts('host', lines), signal);
  }

  async sync(signal: AbortSignal): Promise<void> {
    await this.#session.call('sync', new FieldWriter(), signal, { timeoutMs: DISK_TIMEOUT_MS });
  }

  /** Waits until the kernel has done what it leaves for later after its start. */
  async settle(signal: AbortSignal): Promise<void> {
    await this.#ask('settle', new FieldWriter(), signal);
  }

  /** Resolves with the number of frozen file systems; after `longestMs` the agent thaws them by itself. */
  async freeze(longestMs: number, signal: AbortSignal): Promise<number> {
    return await this.#countOf('freeze', new FieldWriter().u32('timeout', longestMs), signal);
  }

  async thaw(signal: AbortSignal): Promise<number> {
    return await this.#countOf('thaw', new FieldWriter(), signal);
  }

  async mount({ source, target, fstype, flags, options }: GuestMount, signal: AbortSignal): Promise<void> {
    const fields = new FieldWriter().text('source', source).text('path', target).text('fstype', fstype);
    fields.u32('mountFlags', flags).text('options', options);
    await this.#session.call('mount', fields, signal, { timeoutMs: DISK_TIMEOUT_MS });
  }

  /** Resolves when the guest has begun; QEMU tells of the end. Programs have `graceMs` for theirs. */
  async power(action: 'off' | 'reset', graceMs: number, signal: AbortSignal): Promise<void> {
    const fields = new FieldWriter().u8('action', action === 'off' ? 0 : 1).u32('timeout', graceMs);
    await this.#ask('power', fields, signal);
  }

  async #ask(
    type: Parameters<AgentSession['call']>[0],
    fields: FieldWriter,
    signal: AbortSignal,
  ): Promise<FieldReader> {
    return await this.#session.call(type, fields, signal);
  }

  async #countOf(type: 'freeze' | 'thaw', fields: FieldWriter, signal: AbortSignal): Promise<number> {
    return await this.#read(type, fields, signal, (said) => required(said.u32('count'), 'count'), {
      timeoutMs: DISK_TIMEOUT_MS,
    });
  }

  async #read<T>(
    type: Parameters<AgentSession['call']>[0],
    fields: FieldWriter,
    signal: AbortSignal,
    read: (said: FieldReader) => T,
    options: Parameters<AgentSession['call']>[3] = {},
  ): Promise<T> {
    const said = await this.#session.call(type, fields, signal, options);
    try {
      return read(said);
    } catch (error) {
      throw error instanceof FieldError ? nonsense(type, error) : error;
    }
  }
}

const macBytes = (text: string): Buffer => {
  const bytes = Buffer.from(text.replaceAll(':', ''), 'hex');
  if (bytes.length === 6) return bytes;
  throw new RoostError('InvalidArgument', `${text} is no hardware address`, { data: { mac: text } });
};

const linkFields = (which: WhichLink): FieldWriter =>
  'name' in which
    ? new FieldWriter().text('interface', which.name)
    : new FieldWriter().bytes('mac', macBytes(which.mac));

const openLine = async (path: string, signal: AbortSignal): Promise<Socket> => {
  try {
    return await connectUnixSocket(path, signal);
  } catch (error) {
    signal.throwIfAborted();
    throw agentGone('its channel cannot be reached', error);
  }
};

/** Tells a Linux guest who it is, through QEMU's guest agent: requests one after the other, each answer the guest's word. */
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { AgentInterface } from '../../../protocol/agent.ts';
import { isRoostError, RoostError } from '../../../protocol/errors.ts';
import type { ForkIdentity, IdentityTeller } from '../../driver.ts';
import type { AgentClient } from './agent-client.ts';
import { guestText } from './agent-types.ts';
import {
  addressPrograms,
  type GuestProgram,
  type GuestText,
  hostnameTexts,
  isInMemory,
  MACHINE_ID_PATH,
  MOUNTS_PATH,
  machineIdText,
  macPrograms,
  neededCommands,
  reseedPrograms,
  restartServices,
  TOKEN_DIRECTORY,
  TOKEN_PATH,
} from './identity-commands.ts';

/** What of an agent it takes. */
export type TellersAgent = Pick<
  AgentClient,
  | 'whenOpen'
  | 'info'
  | 'interfaces'
  | 'exec'
  | 'execStatus'
  | 'openFile'
  | 'readFile'
  | 'writeFile'
  | 'closeFile'
  | 'setTime'
  | 'time'
>;

/** What the kernel's generator is made of. */
const SEED_BYTES = 64;
const READ_BYTES = 65_536;
/** How far the guest's clock may be from ours once it was set, on a machine where answers take their time. */
const MOST_AWAY_MS = 10_000;
/** An agent tells nobody of the end of a program, or of an address: it is asked again, less often the longer it takes. */
const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 250;
/** How long whoever manages the guest's network may take to get the addresses from ours. */
const OWN_WAY_MS = 20_000;
const MAX_SAID = 256;

type Links = ForkIdentity['links'];

export class AgentTeller implements IdentityTeller {
  readonly #agent: TellersAgent;
  readonly #ownWayMs: number;

  constructor(agent: TellersAgent, { ownWayMs = OWN_WAY_MS }: { readonly ownWayMs?: number } = {}) {
    this.#agent = agent;
    this.#ownWayMs = ownWayMs;
  }

  async prepareForForks(token: string, signal: AbortSignal): Promise<void> {
    await this.#requireCommands(signal);
    const mounts = await this.#read(MOUNTS_PATH, signal);
    if (mounts === undefined || !isInMemory(TOKEN_DIRECTORY, mounts))
      throw unforkable(`it has no ${TOKEN_DIRECTORY} in memory, as a Linux has`);
    await this.#write({ path: TOKEN_PATH, mode: 'w', text: token }, signal);
    await this.#reseed(signal);
    await this.#run({ argv: ['ip', 'link', 'show'] }, signal);
    if ((await this.#read(MACHINE_ID_PATH, signal)) !== undefined)
      await this.#write({ path: MACHINE_ID_PATH, mode: 'r+', text: '' }, signal);
  }

  async tellIdentity(identity: ForkIdentity, signal: AbortSignal): Promise<void> {
    const { fork, links } = identity;
    await this.#agent.whenOpen(signal);
    await this.#requireToken(fork.token, signal);
    // First of all: until then its random bytes are those of every other fork.
    await this.#reseed(signal);
    await this.#setClock(signal);
    if (fork.isItself) return;
    for (const text of hostnameTexts(identity)) await this.#write(text, signal);
    if ((await this.#read(MACHINE_ID_PATH, signal)) !== undefined)
      await this.#write(machineIdText(identity), signal);
    await this.#setMacs(links, fork.macs, signal);
    await this.#mayFail(restartServices, signal);
  }

  async settleAddresses(links: Links, signal: AbortSignal): Promise<void> {
    const until = performance.now() + this.#ownWayMs;
    for (const wait of pauses()) {
      const left = await this.#unsettled(links, signal);
      if (left.length === 0) return;
      if (performance.now() > until) break;
      await pause(wait, undefined, { signal });
    }
    for (const { link, name } of await this.#unsettled(links, signal))
      for (const program of addressPrograms(name, link)) await this.#run(program, signal);
    const [left] = await this.#unsettled(links, signal);
    if (left) throw notItself(`it does not take the address ${left.link.addresses.join(', ')}`);
  }

  async #requireCommands(signal: AbortSignal): Promise<void> {
    const { supportedCommands } = await this.#agent.info(signal);
    const missing = neededCommands.filter((command) => !supportedCommands.includes(command));
    if (missing.length > 0) throw unforkable(`its agent does not do ${missing.join(', ')}`);
  }

  /** One that lost its memory boots afresh, or is another's: its agent answers as well. */
  async #requireToken(token: string, signal: AbortSignal): Promise<void> {
    if ((await this.#read(TOKEN_PATH, signal)) === token) return;
    throw new RoostError('HostError', 'The guest is no fork of its template: it does not know its token', {
      hint: 'Its memory did not arrive. Start it again: it boots by itself.',
    });
  }

  async #reseed(signal: AbortSignal): Promise<void> {
    const refusals: string[] = [];
    for (const program of reseedPrograms(randomBytes(SEED_BYTES))) {
      const said = await this.#mayFail(program, signal);
      if (said === undefined) return;
      refusals.push(said);
    }
    throw unforkable(`nothing in it can renew its random numbers (${refusals.join('; ')})`);
  }

  async #setClock(signal: AbortSignal): Promise<void> {
    const refused = await this.#agent.setTime(Date.now(), signal).catch((error: unknown) => {
      // It sets the clock first; then it may have no program to tell the machine's own.
      if (isRoostError(error, 'FailedPrecondition')) return error;
      throw error;
    });
    if (Math.abs((await this.#agent.time(signal)) - Date.now()) <= MOST_AWAY_MS) return;
    throw refused ?? notItself('it does not take the time');
  }

  async #setMacs(links: Links, before: readonly string[], signal: AbortSignal): Promise<void> {
    const interfaces = await this.#agent.interfaces(signal);
    for (const [index, link] of links.entries()) {
      const was = before[index] ?? link.mac;
      const found = withMac(interfaces, was) ?? withMac(interfaces, link.mac);
      if (!found) throw notItself(`it has no interface with the address ${was}`);
      for (const program of macPrograms(found.name, link)) await this.#run(program, signal);
    }
  }

  async #unsettled(
    links: Links,
    signal: AbortSignal,
  ): Promise<readonly { readonly link: Links[number]; readonly name: string }[]> {
    const interfaces = await this.#agent.interfaces(signal);
    return links.flatMap((link) => {
      const found = withMac(interfaces, link.mac);
      if (!found) throw notItself(`it has no interface with the address ${link.mac}`);
      const has = new Set(found.ipAddresses.map(({ ipAddress, prefix }) => `${ipAddress}/${prefix}`));
      return link.addresses.every((address) => has.has(address)) ? [] : [{ link, name: found.name }];
    });
  }

  /** The whole of a small file; undefined where it cannot be opened. */
  async #read(path: string, signal: AbortSignal): Promise<string | undefined> {
    const handle = await this.#agent.openFile(path, 'r', signal).catch((error: unknown) => {
      if (isRoostError(error, 'FailedPrecondition')) return undefined;
      throw error;
    });
    if (handle === undefined) return undefined;
    const { bytes } = await this.#agent.readFile(handle, READ_BYTES, signal);
    await this.#agent.closeFile(handle, signal);
    return bytes.toString();
  }

  async #write({ path, mode, text }: GuestText, signal: AbortSignal): Promise<void> {
    const handle = await this.#agent.openFile(path, mode, signal);
    const bytes = Buffer.from(text);
    const written = bytes.length === 0 ? 0 : await this.#agent.writeFile(handle, bytes, signal);
    await this.#agent.closeFile(handle, signal);
    if (written !== bytes.length)
      throw notItself(`it has written ${written} of ${bytes.length} bytes to ${path}`);
  }

  async #run(program: GuestProgram, signal: AbortSignal): Promise<void> {
    const failure = await this.#mayFail(program, signal);
    if (failure !== undefined) throw notItself(failure);
  }

  /** Undefined once it has succeeded, else why it has not. */
  async #mayFail({ argv, input }: GuestProgram, signal: AbortSignal): Promise<string | undefined> {
    const [path, ...arg] = argv;
    try {
      const inputData = input?.toString('base64');
      const request = { path, arg, captureOutput: true, ...(inputData === undefined ? {} : { inputData }) };
      const pid = await this.#agent.exec(request, signal);
      for (const wait of pauses()) {
        const { exited, exitcode, errData = '' } = await this.#agent.execStatus(pid, signal);
        if (exited && exitcode === 0) return undefined;
        if (exited) {
          const said = guestText(Buffer.from(errData, 'base64').toString(), MAX_SAID).trim();
          return `${path} failed${said === '' ? '' : `: ${said}`}`;
        }
        await pause(wait, undefined, { signal });
      }
      return undefined;
    } catch (error) {
      if (isRoostError(error, 'FailedPrecondition')) return error.message;
      throw error;
    }
  }
}

function* pauses(): Generator<number> {
  for (let waitMs = FIRST_PAUSE_MS; ; waitMs = Math.min(waitMs * 2, LONGEST_PAUSE_MS)) yield waitMs;
}

/** The first: what lies upon an interface often has its address as well. */
const withMac = (interfaces: readonly AgentInterface[], mac: string): AgentInterface | undefined =>
  interfaces.find(({ hardwareAddress }) => hardwareAddress === mac);

const unforkable = (why: string): RoostError =>
  new RoostError('Unsupported', `A fork of the guest could not become itself: ${why}`, {
    data: { why },
    hint: 'It takes a Linux with qemu-guest-agent, all of its commands enabled, ip(8), and perl or python3.',
  });

const notItself = (why: string): RoostError =>
  new RoostError('HostError', `The guest does not become itself: ${why}`, {
    data: { why },
    hint: 'These are the words of the guest; mend it there.',
  });

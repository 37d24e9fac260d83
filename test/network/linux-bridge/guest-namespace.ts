/** A container as far as the network goes: a network namespace that lives as long as a process in it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { vi } from 'vitest';
import { openTap } from '../../../native/index.ts';
import type { VethPort } from '../../../protocol/net-port.ts';
import { run } from './bench.ts';
import { TapEnd } from './tap-end.ts';

interface Link {
  readonly ifname: string;
  readonly address: string;
  readonly mtu: number;
  readonly flags: readonly string[];
  readonly linkinfo?: { readonly info_slave_data?: { readonly state?: string } };
}

/** Links of this network namespace, or of that of a process. */
export async function links(within: readonly string[] = []): Promise<readonly Link[]> {
  const [program, ...args] = [...within, 'ip', '-json', '-details', 'link', 'show'];
  return JSON.parse((await run(program, args)).stdout) as Link[];
}

export const linkNamed = async (name: string, within?: readonly string[]): Promise<Link | undefined> =>
  (await links(within)).find(({ ifname }) => ifname === name);

/** A bridge takes up a port a little after its carrier; nothing tells when but the port's state. */
const forwarding = (name: string, within?: readonly string[]): Promise<void> =>
  vi.waitFor(
    async () => {
      const state = (await linkNamed(name, within))?.linkinfo?.info_slave_data?.state;
      if (state !== 'forwarding') throw new Error(`${name} is ${state}`);
    },
    { timeout: 10_000 },
  );

export class GuestNamespace {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;

  private constructor(process: ChildProcessByStdio<Writable, Readable, null>) {
    this.#process = process;
  }

  static async open(): Promise<GuestNamespace> {
    const process = spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
    // What comes back was written by a process that is in the namespace already.
    process.stdin.write('there\n');
    await once(process.stdout, 'data');
    return new GuestNamespace(process);
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** What a command line begins with to be run in the namespace. */
  get within(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.pid}/ns/net`];
  }

  async run(...argv: readonly string[]): Promise<string> {
    const [program = '', ...args] = [...this.within, ...argv];
    return (await run(program, args)).stdout;
  }

  /** Runs a program that is killed when the signal says so. */
  async runUntil(signal: AbortSignal, ...argv: readonly string[]): Promise<void> {
    const [program = '', ...args] = [...this.within, ...argv];
    await run(program, args, { signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }

  /** Runs each as a command line of `ip`, in the namespace. */
  async ip(...lines: readonly string[]): Promise<void> {
    for (const line of lines) await this.run('ip', ...line.split(' '));
  }

  /** As liblxc moves it, and gives it its address. */
  async take({ link, peer, ipv4 }: VethPort): Promise<void> {
    await run('ip', ['link', 'set', 'dev', peer, 'netns', String(this.pid), 'name', 'eth0']);
    await this.ip('link set dev eth0 up');
    if (ipv4 !== undefined) {
      await this.ip(`address add ${ipv4.address}/${ipv4.prefixLength} dev eth0`);
      if (ipv4.gateway !== undefined) await this.ip(`route add default via ${ipv4.gateway}`);
    }
    await forwarding(link);
  }

  /** Frames by hand instead: a bridge in the namespace leads from the port's end to a tap, whose descriptor is here. */
  async takeByHand({ link, peer, mac }: VethPort, ip: string): Promise<TapEnd> {
    const tap = `by${peer.slice(2)}`;
    const end = new TapEnd(openTap(tap), mac, ip);
    for (const each of [tap, peer]) await run('ip', ['link', 'set', 'dev', each, 'netns', String(this.pid)]);
    await this.ip(
      'link add name inner type bridge stp_state 0 forward_delay 0 mcast_snooping 0',
      'link set dev inner addrgenmode none',
      'link set dev inner up',
      // The bridge would take for itself what is sent to the address of its port.
      `link set dev ${peer} address 02:00:00:00:00:01`,
    );
    for (const each of [tap, peer])
      await this.ip(`link set dev ${each} addrgenmode none`, `link set dev ${each} master inner up`);
    await Promise.all([forwarding(link), forwarding(tap, this.within), forwarding(peer, this.within)]);
    return end;
  }

  /** The namespace goes a little later. */
  async kill(): Promise<void> {
    const ended = once(this.#process, 'exit');
    if (this.#process.kill('SIGKILL')) await ended;
  }
}

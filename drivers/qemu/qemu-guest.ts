/** A live guest of QEMU: what every process of a guest can do, and its devices, its directories and its forks. */
import { RoostError } from '../../protocol/errors.ts';
import {
  type DeviceName,
  type DeviceNames,
  type ForkSource,
  type GuestDisks,
  type GuestHandle,
  guestVerbs,
  type PinnedMachine,
  type PluggedDevice,
} from '../driver.ts';
import { isSilence, ProcessGuest, type ProcessGuestParts } from '../processes/process-guest.ts';
import { MicrovmClient } from '../roost-agent/microvm-client.ts';
import { AgentClient } from './agent/agent-client.ts';
import { AgentTeller } from './agent/agent-teller.ts';
import { watchDirectoryServers } from './directory-servers.ts';
import { freeze } from './fork.ts';
import { handOver } from './hand-over.ts';
import { Hotplug } from './hotplug.ts';

export const qemuVerbs: GuestHandle['verbs'] = new Set(guestVerbs);

export interface QemuGuestParts extends ProcessGuestParts {
  /** A path of the host as QEMU is to be told it. */
  readonly pathFor: (path: string) => string;
}

export class QemuGuest extends ProcessGuest<QemuGuestParts> implements GuestHandle {
  readonly verbs = qemuVerbs;
  readonly forks: ForkSource = {
    freezeForForks: (signal) => freeze(this.parts, this.process.pid, this.whileAlive(signal)),
    handOver: (receiver, signal) => this.#handOver(receiver, signal),
    setLinks: (areUp, signal) => this.#hotplug.setLinks(areUp, this.whileAlive(signal)),
  };
  readonly disks: GuestDisks = {
    resizeDisk: (name, sizeBytes, signal) =>
      this.#hotplug.resizeDisk(name, sizeBytes, this.whileAlive(signal)),
    setMedium: (cdrom, medium, { force, signal }) =>
      this.#hotplug.setMedium(cdrom, medium, { force, signal: this.whileAlive(signal) }),
  };
  readonly #hotplug: Hotplug;
  #closeDirectories: () => void = () => undefined;

  constructor(parts: QemuGuestParts) {
    super(parts);
    this.#hotplug = new Hotplug(parts);
    const { agent, events, observe } = parts;
    if (agent instanceof MicrovmClient)
      agent.onProgramEnded = ({ exitCode, signal }) =>
        observe(
          {
            kind: 'program-ended',
            ...(exitCode === undefined ? {} : { exitCode }),
            ...(signal === undefined ? {} : { signal }),
            at: Date.now(),
          },
          events.cursor,
        );
  }

  /** From then on it is observed when what serves a directory ends before the guest does. */
  async watchDirectories(): Promise<void> {
    const watch = await watchDirectoryServers(this.parts.place, (name) => void this.#unserved(name));
    this.#closeDirectories = watch.close;
  }

  get init(): GuestHandle['init'] {
    const { agent } = this.parts;
    return agent instanceof MicrovmClient ? agent : undefined;
  }

  get teller(): GuestHandle['teller'] {
    const { agent } = this.parts;
    return agent instanceof AgentClient ? new AgentTeller(agent) : undefined;
  }

  devices(signal: AbortSignal): Promise<DeviceNames> {
    return this.#hotplug.devices(this.whileAlive(signal));
  }

  plug(machine: PinnedMachine, device: PluggedDevice, signal: AbortSignal): Promise<void> {
    return this.#hotplug.plug(machine, device, this.whileAlive(signal));
  }

  unplug(device: DeviceName, signal: AbortSignal): Promise<void> {
    return this.#hotplug.unplug(device, this.whileAlive(signal));
  }

  protected override async beforeRelease(): Promise<void> {
    const { agent } = this.parts;
    if (agent instanceof MicrovmClient) await agent.leave();
  }

  protected override closeWatches(): void {
    this.#closeDirectories();
  }

  async #handOver(receiver: GuestHandle, signal: AbortSignal): ReturnType<ForkSource['handOver']> {
    if (!(receiver instanceof QemuGuest)) throw new RoostError('Internal', 'The receiver is none of QEMU');
    const both = this.whileAlive(receiver.whileAlive(signal));
    const whileRunning = this.accel === 'kvm';
    return await handOver(this.parts, receiver.parts, { whileRunning }, both);
  }

  /** Those who serve a guest end with it, and a moment earlier where it shuts down: then its monitor answers no more. */
  async #unserved(name: string): Promise<void> {
    const { observe, events } = this.parts;
    try {
      await this.queryState(this.whileAlive());
    } catch (error) {
      if (!isSilence(error)) return;
    }
    observe({ kind: 'filesystem-lost', name, at: Date.now() }, events.cursor);
  }
}

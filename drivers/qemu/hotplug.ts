/**
 * Devices of a QEMU that runs: what it has, plugging, unplugging, and what else changes about them while it runs.
 *
 * Nothing is remembered here. Each call first asks QEMU what is there, because an earlier daemon may have died in the
 * middle: `plug` makes what is missing, `unplug` takes away what is left, and either may be done again. A device counts
 * as plugged when its front end is there; that is made last and goes first.
 */
import { abortReason, deadline, deferred, waitOrAbort } from '../../lib/abort.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { isRoostError, RoostError } from '../../protocol/errors.ts';
import type { DeviceName, DeviceNames, PinnedMachine, PluggedDevice } from '../driver.ts';
import type { EventLog } from '../processes/event-log.ts';
import type { Monitor } from '../processes/monitor.ts';
import {
  blockNodes,
  cdromId,
  diskDevice,
  diskId,
  familyOf,
  netdev,
  netdevId,
  nicDevice,
  nicId,
  topNode,
} from './devices.ts';

/**
 * After how long the guest is asked again: one that was booting has not heard. Above the five seconds within which a
 * second press of a PCI Express attention button takes the first one back (PCI Express base specification 6.7.1.5).
 */
const ASK_AGAIN_MS = 10_000;

const NODE_RELEASE_MS = 10;

export interface HotplugOptions {
  readonly monitor: Pick<Monitor, 'execute' | 'sendDescriptor'>;
  readonly events: Pick<EventLog, 'onEvent'>;
  /** A path of the host as QEMU is to be told it. */
  readonly pathFor: (path: string) => string;
}

/** Whether guests of this machine take devices while they run. */
export const takesDevices = (machine: PinnedMachine): boolean => familyOf(machine) !== 'microvm';

export class Hotplug {
  readonly #options: HotplugOptions;

  constructor(options: HotplugOptions) {
    this.#options = options;
  }

  async devices(signal: AbortSignal): Promise<DeviceNames> {
    const present = [...(await this.#peripherals(signal))];
    const named = (prefix: string): ReadonlySet<string> =>
      new Set(present.flatMap((id) => (id.startsWith(prefix) ? [id.slice(prefix.length)] : [])));
    return { disks: named(diskId('')), nics: named(nicId('')) };
  }

  async setLinks(areUp: boolean, signal: AbortSignal): Promise<void> {
    const { nics } = await this.devices(signal);
    for (const name of nics)
      await this.#options.monitor.execute('set_link', { name: nicId(name), up: areUp }, signal);
  }

  async plug(machine: PinnedMachine, device: PluggedDevice, signal: AbortSignal): Promise<void> {
    if (!takesDevices(machine)) throw unsupported(machine);
    const present = await this.#peripherals(signal);
    if (present.has(deviceId({ kind: device.kind, name: device.pinned.name }))) return;
    refuseMissingPort(machine, device, present);
    if (device.kind === 'disk') await this.#plugDisk(machine, device, signal);
    else await this.#plugNic(machine, device, signal);
  }

  /** Rejects with FailedPrecondition when the guest refuses; as long as it says nothing this goes on. */
  async unplug(device: DeviceName, signal: AbortSignal): Promise<void> {
    const id = deviceId(device);
    while ((await this.#peripherals(signal)).has(id)) await this.#askOnce(device, id, signal);
    if (device.kind === 'disk') await this.#removeNodes(id, signal);
    else await this.#removeNetdev(device.name, signal);
  }

  async resizeDisk(name: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    await this.#options.monitor.execute(
      'block_resize',
      { 'node-name': topNode(diskId(name)), size: sizeBytes },
      signal,
    );
  }

  async setMedium(
    cdrom: string,
    medium: BlockSource | undefined,
    { force, signal }: { readonly force: boolean; readonly signal: AbortSignal },
  ): Promise<void> {
    const { monitor } = this.#options;
    const id = cdromId(cdrom);
    try {
      await monitor.execute('blockdev-open-tray', { id, force }, signal);
    } catch (error) {
      throw said(error).includes('is locked') ? lockedDrive(cdrom) : error;
    }
    await monitor.execute('blockdev-remove-medium', { id }, signal);
    await this.#removeNodes(id, signal);
    if (medium !== undefined) {
      await this.#addNodes(id, medium, signal);
      await monitor.execute('blockdev-insert-medium', { id, 'node-name': topNode(id) }, signal);
    }
    await monitor.execute('blockdev-close-tray', { id }, signal);
  }

  async #plugDisk(
    machine: PinnedMachine,
    { pinned, source }: Extract<PluggedDevice, { kind: 'disk' }>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#addNodes(diskId(pinned.name), source, signal);
    await this.#options.monitor.execute('device_add', diskDevice(machine, pinned), signal);
  }

  async #plugNic(
    machine: PinnedMachine,
    { pinned, port, descriptor }: Extract<PluggedDevice, { kind: 'nic' }>,
    signal: AbortSignal,
  ): Promise<void> {
    const { monitor } = this.#options;
    const id = netdevId(pinned.name);
    await this.#removeNetdev(pinned.name, signal);
    if (port.kind === 'tap') {
      if (descriptor === undefined)
        throw new RoostError('Internal', `NIC ${pinned.name} came without its tap`);
      await monitor.sendDescriptor(id, descriptor, signal);
    }
    await monitor.execute('netdev_add', netdev(pinned.name, port, id), signal);
    await monitor.execute('device_add', nicDevice(machine, pinned), signal);
  }

  /** Asks the guest to let go, and waits until it does, refuses, or it is time to ask again. */
  async #askOnce(device: DeviceName, id: string, signal: AbortSignal): Promise<void> {
    const answered = deferred<void>();
    const forget = this.#options.events.onEvent(({ event, data }) => {
      if (data['device'] !== id) return;
      if (event === 'DEVICE_DELETED') answered.resolve();
      if (event === 'DEVICE_UNPLUG_GUEST_ERROR') answered.reject(refusedByGuest(device));
    });
    // It may refuse before anybody waits for it.
    answered.promise.catch(() => undefined);
    try {
      if ((await this.#ask(id, signal)) === 'missing') return;
      using again = deadline(ASK_AGAIN_MS, signal);
      await waitOrAbort(answered.promise, again.signal).catch((error: unknown) => {
        if (isRoostError(error, 'FailedPrecondition')) throw error;
        if (signal.aborted) throw abortReason(signal);
      });
    } finally {
      forget();
    }
  }

  async #ask(id: string, signal: AbortSignal): Promise<'asked' | 'missing'> {
    try {
      await this.#options.monitor.execute('device_del', { id }, signal);
    } catch (error) {
      if (saysMissing(error)) return 'missing';
      if (!said(error).includes('already in the process of unplug')) throw error;
    }
    return 'asked';
  }

  async #addNodes(id: string, source: BlockSource, signal: AbortSignal): Promise<void> {
    const present = await this.#nodes(signal);
    for (const node of blockNodes(id, source, this.#options.pathFor))
      if (!present.has(node['node-name'])) await this.#options.monitor.execute('blockdev-add', node, signal);
  }

  /** The topmost first: a node that another stands on cannot go. Any part of the chain may be missing already. */
  async #removeNodes(id: string, signal: AbortSignal): Promise<void> {
    const own = [...(await this.#nodes(signal))].flatMap((name) => {
      const [, depth, file] = name.startsWith(`${id}-`)
        ? (/^(\d+)(-file)?$/.exec(name.slice(id.length + 1)) ?? [])
        : [];
      return depth === undefined ? [] : [{ name, order: 2 * Number(depth) + (file === undefined ? 0 : 1) }];
    });
    for (const { name } of own.toSorted((a, b) => a.order - b.order)) await this.#removeNode(name, signal);
  }

  /** For a moment after a device is gone its node counts as used still, and QEMU tells nobody when that is over. */
  async #removeNode(name: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await this.#options.monitor.execute('blockdev-del', { 'node-name': name }, signal);
        return;
      } catch (error) {
        if (!said(error).includes('is in use')) throw error;
      }
      await pause(NODE_RELEASE_MS, signal);
    }
  }

  /** The back end, and a descriptor that was handed over and never used: QEMU would keep its tap. */
  async #removeNetdev(name: string, signal: AbortSignal): Promise<void> {
    const { monitor } = this.#options;
    const id = netdevId(name);
    await monitor.execute('netdev_del', { id }, signal).catch(unlessMissing);
    await monitor.execute('closefd', { fdname: id }, signal).catch(unlessMissing);
  }

  async #peripherals(signal: AbortSignal): Promise<ReadonlySet<string>> {
    const found = await this.#options.monitor.execute('qom-list', { path: '/machine/peripheral' }, signal);
    return new Set(found.flatMap(({ name, type }) => (type.startsWith('child<') ? [name] : [])));
  }

  async #nodes(signal: AbortSignal): Promise<ReadonlySet<string>> {
    const found = await this.#options.monitor.execute('query-named-block-nodes', { flat: true }, signal);
    return new Set(found.flatMap((node) => node['node-name'] ?? []));
  }
}

const pause = async (delayMs: number, signal: AbortSignal): Promise<void> => {
  const over = deferred<void>();
  const timer = setTimeout(over.resolve, delayMs);
  try {
    await waitOrAbort(over.promise, signal);
  } finally {
    clearTimeout(timer);
  }
};

const deviceId = ({ kind, name }: DeviceName): string => (kind === 'disk' ? diskId(name) : nicId(name));

/** QEMU's own words in a refusal. */
const said = (error: unknown): string => {
  const words = isRoostError(error, 'HostError') ? error.data?.['said'] : undefined;
  return typeof words === 'string' ? words : '';
};

const saysMissing = (error: unknown): boolean => said(error).includes('not found');

const unlessMissing = (error: unknown): void => {
  if (!saysMissing(error)) throw error;
};

/** A running q35 has the ports that it was started with. */
const refuseMissingPort = (
  machine: PinnedMachine,
  { kind, pinned }: PluggedDevice,
  present: ReadonlySet<string>,
): void => {
  if (familyOf(machine) !== 'q35' || present.has(pinned.address)) return;
  throw new RoostError('ResourceExhausted', `The running guest has no free port for ${kind} ${pinned.name}`, {
    data: { device: pinned.name, port: pinned.address },
    hint: 'Unplug another device, or stop the guest, attach and start it: it starts with four free ports.',
  });
};

const unsupported = (machine: PinnedMachine): RoostError =>
  new RoostError('Unsupported', `A ${machine.type} takes and gives no device while it runs`, {
    data: { machine: machine.type },
    hint: 'Stop the guest first.',
  });

const lockedDrive = (cdrom: string): RoostError =>
  new RoostError('FailedPrecondition', `The guest has locked the drive ${cdrom}`, {
    data: { cdrom },
    hint: 'Unmount the medium inside the guest, which was told that the button is pressed; or use force.',
  });

const refusedByGuest = ({ kind, name }: DeviceName): RoostError =>
  new RoostError('FailedPrecondition', `The guest refuses to let go of ${kind} ${name}`, {
    data: { device: name },
    hint: "Stop using it inside the guest and try again; the guest's own log has the reason.",
  });

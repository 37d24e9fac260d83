/**
 * Plugging and unplugging against a QEMU in memory that knows nodes, back ends, devices and descriptors, and fails or
 * loses its daemon after any number of commands.
 */
import { describe, expect, it } from 'vitest';
import type { PinnedMachine, PluggedDevice } from '../../../drivers/driver.ts';
import type { Monitor } from '../../../drivers/processes/monitor.ts';
import type { QmpEvent } from '../../../drivers/processes/qmp/qmp-types.ts';
import { Hotplug } from '../../../drivers/qemu/hotplug.ts';
import { pinMachine } from '../../../drivers/qemu/machine.ts';
import { RoostError } from '../../../protocol/errors.ts';
import { guestSpec } from '../../../protocol/guest.ts';
import type { MacAddress } from '../../../protocol/types.ts';

const mac = '52:54:00:00:00:01' as MacAddress;
const machine: PinnedMachine = pinMachine(
  {
    ...guestSpec.parse({ name: 'tested', disks: [{ sizeBytes: 512, name: 'data' }] }),
    nics: [{ name: 'extra', network: 'lan', mac }],
  },
  { type: 'pc-q35-7.2', family: 'q35', serialPrefix: '0123456789ab' },
);
const disk = (): PluggedDevice => {
  const [pinned] = machine.disks;
  if (!pinned) throw new Error('the machine has a disk');
  const base = { format: 'qcow2', path: '/images/base.qcow2', readOnly: true, sizeBytes: 512 } as const;
  return {
    kind: 'disk',
    pinned,
    source: { format: 'qcow2', path: '/disks/data.qcow2', readOnly: false, sizeBytes: 512, backing: base },
  };
};
const nic = (): PluggedDevice => {
  const [pinned] = machine.nics;
  if (!pinned) throw new Error('the machine has a NIC');
  return { kind: 'nic', pinned, port: { kind: 'tap', link: 'tap0', mac }, descriptor: 99 };
};

const refuse = (desc: string): RoostError => new RoostError('HostError', desc, { data: { said: desc } });

/** Answers as QEMU does; `dieAfter` commands it is silent for good. */
class ModelQemu {
  readonly nodes = new Set<string>();
  readonly devices = new Set<string>(['port0', 'port1', 'port2']);
  readonly netdevs = new Set<string>();
  readonly descriptors = new Set<string>();
  readonly links = new Map<string, boolean>();
  readonly listeners = new Set<(event: QmpEvent) => void>();
  answer: 'consents' | 'refuses' = 'consents';
  dieAfter = Infinity;
  commands = 0;

  hotplug(): Hotplug {
    const monitor = {
      execute: async (command: string, args: Readonly<Record<string, unknown>>) =>
        this.#execute(command, args),
      sendDescriptor: async (name: string) => {
        this.#count();
        this.descriptors.add(name);
      },
    };
    return new Hotplug({
      monitor: monitor as unknown as Monitor,
      events: {
        onEvent: (listener) => {
          this.listeners.add(listener);
          return () => this.listeners.delete(listener);
        },
      },
      pathFor: (path) => path,
    });
  }

  #count(): void {
    if (this.commands >= this.dieAfter) throw new Error('the daemon died here');
    this.commands += 1;
  }

  #execute(command: string, args: Readonly<Record<string, unknown>>): unknown {
    this.#count();
    const text = (member: string): string => String(args[member]);
    switch (command) {
      case 'qom-list':
        return [...this.devices].map((name) => ({ name, type: 'child<some-device>' }));
      case 'query-named-block-nodes':
        return [...this.nodes].map((name) => ({ 'node-name': name }));
      case 'blockdev-add':
        if (this.nodes.has(text('node-name'))) throw refuse('Duplicate nodes');
        this.nodes.add(text('node-name'));
        return {};
      case 'blockdev-del':
        if (this.devices.has(text('node-name').replace(/-\d+(-file)?$/, ''))) throw refuse('Node is in use');
        this.nodes.delete(text('node-name'));
        return {};
      case 'netdev_add':
        if (this.netdevs.has(text('id'))) throw refuse('Duplicate ID');
        if (!this.descriptors.delete(text('fd'))) throw refuse('File descriptor named not found');
        this.netdevs.add(text('id'));
        return {};
      case 'netdev_del':
        if (!this.netdevs.delete(text('id'))) throw refuse('Device not found');
        return {};
      case 'closefd':
        if (!this.descriptors.delete(text('fdname'))) throw refuse('File descriptor not found');
        return {};
      case 'device_add':
        if (this.devices.has(text('id'))) throw refuse('Duplicate device ID');
        this.devices.add(text('id'));
        return {};
      case 'set_link':
        this.links.set(text('name'), args['up'] === true);
        return {};
      case 'device_del':
        if (!this.devices.has(text('id'))) throw refuse('Device not found');
        this.#tell(text('id'));
        return {};
      default:
        throw new Error(`the model knows no ${command}`);
    }
  }

  #tell(device: string): void {
    const event = this.answer === 'consents' ? 'DEVICE_DELETED' : 'DEVICE_UNPLUG_GUEST_ERROR';
    if (this.answer === 'consents') this.devices.delete(device);
    for (const listener of this.listeners)
      listener({ event, data: { device }, timestamp: { seconds: 0, microseconds: 0 } });
  }

  get account(): readonly (readonly string[])[] {
    return [this.nodes, this.devices, this.netdevs, this.descriptors].map((names) => [...names].sort());
  }
}

const signal = new AbortController().signal;
const empty = new ModelQemu().account;

describe.each([
  ['disk', disk],
  ['nic', nic],
] as const)('a %s', (kind, make) => {
  const name = make().pinned.name;
  const plugged = async (): Promise<ModelQemu> => {
    const qemu = new ModelQemu();
    await qemu.hotplug().plug(machine, make(), signal);
    return qemu;
  };

  it('is plugged and unplugged, each also twice, and leaves nothing', async () => {
    const qemu = await plugged();
    const whole = qemu.account;
    expect(whole).not.toEqual(empty);
    await qemu.hotplug().plug(machine, make(), signal);
    expect(qemu.account).toEqual(whole);
    for (const _time of [1, 2]) {
      await qemu.hotplug().unplug({ kind, name }, signal);
      expect(qemu.account).toEqual(empty);
    }
  });

  it('is finished or taken away by the next daemon wherever the first one died', async () => {
    const { account: whole, commands } = await plugged();
    for (let dieAfter = 0; dieAfter < commands; dieAfter += 1)
      for (const next of ['plug', 'unplug'] as const) {
        const qemu = new ModelQemu();
        qemu.dieAfter = dieAfter;
        await expect(qemu.hotplug().plug(machine, make(), signal)).rejects.toThrow('the daemon died here');
        qemu.dieAfter = Infinity;
        if (next === 'plug') await qemu.hotplug().plug(machine, make(), signal);
        else await qemu.hotplug().unplug({ kind, name }, signal);
        expect(qemu.account).toEqual(next === 'plug' ? whole : empty);
      }
  });

  it('is unplugged to the end by the next daemon wherever the first one died', async () => {
    const measured = await plugged();
    measured.commands = 0;
    await measured.hotplug().unplug({ kind, name }, signal);
    for (let dieAfter = 0; dieAfter < measured.commands; dieAfter += 1) {
      const qemu = await plugged();
      qemu.commands = 0;
      qemu.dieAfter = dieAfter;
      await expect(qemu.hotplug().unplug({ kind, name }, signal)).rejects.toThrow('the daemon died here');
      qemu.dieAfter = Infinity;
      await qemu.hotplug().unplug({ kind, name }, signal);
      expect(qemu.account).toEqual(empty);
    }
  });

  it('stays whole when the guest refuses to let go', async () => {
    const qemu = await plugged();
    const whole = qemu.account;
    qemu.answer = 'refuses';
    await expect(qemu.hotplug().unplug({ kind, name }, signal)).rejects.toMatchObject({
      class: 'FailedPrecondition',
    });
    expect(qemu.account).toEqual(whole);
    expect(qemu.listeners.size).toBe(0);
  });
});

it('a device is refused where the running machine has no port for it', async () => {
  const qemu = new ModelQemu();
  qemu.devices.delete('port0');
  await expect(qemu.hotplug().plug(machine, disk(), signal)).rejects.toMatchObject({
    class: 'ResourceExhausted',
  });
  expect(qemu.nodes.size).toBe(0);
});

it('pulls the cables of all NICs, and of nothing else, and plugs them in again', async () => {
  const qemu = new ModelQemu();
  for (const device of ['nic-nic0', 'nic-nic1', 'disk-disk0', 'serial0']) qemu.devices.add(device);
  await qemu.hotplug().setLinks(false, signal);
  expect([...qemu.links]).toEqual([
    ['nic-nic0', false],
    ['nic-nic1', false],
  ]);
  await qemu.hotplug().setLinks(true, signal);
  expect([...qemu.links.values()]).toEqual([true, true]);
});

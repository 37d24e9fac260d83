/**
 * Networks of the inventory. Each has a mailbox of its own; a network is mended at every start of the daemon before the
 * guests attached to it are touched.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { waitOrAbort } from '../lib/abort.ts';
import { enter } from '../lib/account.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { Mailbox } from '../lib/mailbox.ts';
import type {
  Addressing,
  AttachedPort,
  NetworkBackend,
  NetworkPlace,
  PortAnswer,
  PortPlan,
  PortReport,
  PortSpec,
} from '../network/backend.ts';
import type { CommandArguments } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import { type HostObject, hostObjectKey } from '../protocol/host-object.ts';
import type { NetworkKind, NetworkView } from '../protocol/network.ts';
import type { Accepted } from '../protocol/operation.ts';
import type { Actor, InstanceId, NetworkId } from '../protocol/types.ts';
import { allocateAddress } from './allocate-address.ts';
import type { EventLog } from './event-log.ts';
import type { Inventory } from './inventory/inventory.ts';
import type { NetworkRecord } from './inventory/network-table.ts';
import type { OperationRecord } from './inventory/operation-table.ts';
import { networkView } from './network-view.ts';
import { cleanUp } from './operations/clean-up.ts';
import { enqueue, type OperationWork } from './operations/enqueue.ts';
import type { Operations } from './operations/operations.ts';
import type { Step } from './operations/steps.ts';
import { NetworkRecordKeeping } from './records/network-record-keeping.ts';
import { hasSubnet, requireBridgeName, subnetFor } from './subnet-for.ts';

export interface NetworksOptions {
  readonly inventory: Inventory;
  readonly operations: Operations;
  readonly events: EventLog;
  readonly backends: readonly NetworkBackend[];
  readonly addressing: Addressing;
  readonly instance: InstanceId;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly stopping: AbortSignal;
  readonly clock: Clock;
  readonly log: Log;
}

export class Networks {
  readonly #options: NetworksOptions;
  readonly #mailboxes = new Map<NetworkId, Mailbox>();
  /** Networks that could not be mended at the start of the daemon; tried again when a guest needs them. */
  readonly #broken = new Set<NetworkId>();
  readonly #records: NetworkRecordKeeping;

  constructor(options: NetworksOptions) {
    this.#options = options;
    this.#records = new NetworkRecordKeeping(options);
  }

  /** Errors: NotFound, FailedPrecondition while it is being made or removed. */
  require(reference: string): NetworkRecord {
    const network = this.#find(reference);
    if (network.state === 'ready') return network;
    throw new RoostError(
      'FailedPrecondition',
      `Network ${network.name} is ${network.state}${network.reason ? ` (${network.reason})` : ''}`,
      {
        data: { network: network.name, state: network.state },
        hint:
          network.state === 'failed' ? 'Delete it and create it again.' : 'Wait for its operation to end.',
      },
    );
  }

  byId(id: NetworkId): NetworkRecord {
    return this.#find(id);
  }

  async create(args: CommandArguments<'network-create'>, actor: Actor): Promise<Accepted> {
    const { inventory, operations, clock } = this.#options;
    const backend = this.#backendFor(args.kind);
    requireBridgeName(args);
    const onHost = hasSubnet(args.kind)
      ? ((await backend.usedSubnets?.(new AbortController().signal)) ?? [])
      : [];
    const record = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, 'network-create', args.name);
      if (repeated) return repeated;
      if (inventory.networks.find(args.name))
        throw new RoostError('AlreadyExists', `There is a network called ${args.name}`, {
          data: { name: args.name },
          hint: 'Choose another name, or use that network.',
        });
      this.#refuseJoinedTwice(args.bridge);
      const taken = [...onHost, ...inventory.networks.all().flatMap((network) => network.subnet ?? [])];
      const subnet = subnetFor(args, taken, this.#options.addressing);
      const id = randomUUID() as NetworkId;
      const network = inventory.networks.insert({
        id,
        name: args.name,
        kind: args.kind,
        createdAt: clock.now(),
        ...(subnet === undefined ? {} : { subnet, gateway: this.#options.addressing.gatewayOf(subnet) }),
        ...(args.bridge === undefined ? {} : { bridge: args.bridge }),
      });
      inventory.ledger.record({ kind: 'network', id }, 'existence', this.objectsOf(network), clock.now());
      return operations.insert({
        kind: 'network-create',
        subject: { kind: 'network', id, name: args.name },
        actor,
        arguments: args,
        idempotencyKey: args.idempotencyKey,
      });
    });
    return this.#enqueue(record);
  }

  async delete(args: CommandArguments<'network-delete'>, actor: Actor): Promise<Accepted> {
    const { inventory, operations } = this.#options;
    const record = await inventory.db.durably(() => {
      const repeated = operations.repeated(args.idempotencyKey, 'network-delete', args.network);
      if (repeated) return repeated;
      const network = this.#find(args.network);
      if (network.state === 'creating' || network.state === 'deleting')
        throw new RoostError('FailedPrecondition', `Network ${network.name} is ${network.state}`, {
          data: { network: network.name, state: network.state },
          hint: 'Wait for its operation to end.',
        });
      const usedBy = inventory.networks.users(network.id);
      if (usedBy.length > 0)
        throw new RoostError(
          'FailedPrecondition',
          `Network ${network.name} is used by ${usedBy.slice(0, 5).join(', ')}${usedBy.length > 5 ? ' …' : ''}`,
          {
            data: { network: network.name, usedBy: [...usedBy] },
            hint: 'Delete those guests first.',
          },
        );
      // The reason of a network that failed stays, for the case that the deletion is cancelled before its turn.
      inventory.networks.setState(network.id, 'deleting', network.reason);
      return operations.insert({
        kind: 'network-delete',
        subject: { kind: 'network', id: network.id, name: network.name },
        actor,
        arguments: args,
        idempotencyKey: args.idempotencyKey,
      });
    });
    return this.#enqueue(record);
  }

  views(references: readonly string[] | undefined): readonly NetworkView[] {
    const { inventory } = this.#options;
    const networks = references ? this.#named(references) : inventory.networks.all();
    return networks.map((network) =>
      networkView(network, {
        ...this.#bridgeOf(network),
        ...this.#namesOf(network),
        usedBy: [...inventory.networks.users(network.id)],
      }),
    );
  }

  /**
   * An address for a NIC, the wished one or the next free; undefined where the network gives none. In a transaction.
   *
   * @param chosen just given to other NICs of the same guest
   * Errors: InvalidArgument, AlreadyExists, ResourceExhausted.
   */
  allocate(
    network: NetworkRecord,
    wished: string | undefined,
    chosen: readonly string[],
  ): string | undefined {
    const { addressing, inventory } = this.#options;
    const used = [...inventory.guests.addressesOf(network.id), ...chosen];
    return allocateAddress(network, wished, used, addressing);
  }

  /** Whether a NIC on the network can have that address, or none. */
  mayHave({ subnet, kind }: NetworkRecord, ipv4: string | undefined): boolean {
    if (subnet === undefined) return kind === 'bridge' || ipv4 === undefined;
    return ipv4 !== undefined && this.#options.addressing.isGuestAddress(subnet, ipv4);
  }

  /** Ports of the host in use at this moment, where a network passes them on to guests. */
  async usedPorts(network: NetworkRecord, signal: AbortSignal): Promise<ReadonlySet<number>> {
    return (await this.#backendFor(network.kind).usedPorts?.(signal)) ?? new Set();
  }

  planPort(network: NetworkId, port: PortSpec): PortPlan {
    const record = this.#find(network);
    return this.#backendFor(record.kind).planPort(this.place(record), port);
  }

  /** Attaches a port once the network has been mended after the start of the daemon. */
  async attach(network: NetworkId, port: PortSpec, signal: AbortSignal): Promise<AttachedPort> {
    await waitOrAbort(this.#mailbox(network).idle(), signal);
    const record = this.require(network);
    const backend = this.#backendFor(record.kind);
    if (this.#broken.has(network)) {
      await backend.ensure(this.place(record), signal);
      this.#broken.delete(network);
    }
    return await backend.attach(this.place(record), port, signal);
  }

  /** Lets the frames of a port through again that a running guest holds, should its rules have been lost. */
  async restore(network: NetworkId, port: PortSpec, signal: AbortSignal): Promise<void> {
    await this.#mailbox(network).idle();
    const record = this.#options.inventory.networks.find(network);
    if (record?.state === 'ready')
      await this.#backendFor(record.kind).restorePort?.(this.place(record), port, signal);
  }

  /** See `NetworkBackend.announce`. */
  async announce(network: NetworkId, port: PortSpec, signal: AbortSignal): Promise<void> {
    const record = this.require(network);
    await this.#backendFor(record.kind).announce?.(this.place(record), port, signal);
  }

  /** Host objects of a port; none where its network is gone. */
  portObjects(network: NetworkId, port: PortSpec): readonly HostObject[] {
    const record = this.#options.inventory.networks.find(network);
    return record ? this.planPort(network, port).objects : [];
  }

  async detach(network: NetworkId, port: PortSpec, signal: AbortSignal): Promise<void> {
    const record = this.#options.inventory.networks.find(network);
    if (record) await this.#backendFor(record.kind).detach(this.place(record), port, signal);
  }

  /** See `NetworkBackend.answer`. */
  async answer(network: NetworkId, port: PortSpec, since: number, signal: AbortSignal): Promise<PortAnswer> {
    const record = this.#find(network);
    return await this.#backendFor(record.kind).answer(this.place(record), port, since, signal);
  }

  /** See `NetworkBackend.report`. */
  async report(network: NetworkId, port: PortSpec, signal: AbortSignal): Promise<PortReport> {
    const record = this.#find(network);
    return await this.#backendFor(record.kind).report(this.place(record), port, signal);
  }

  place(network: NetworkRecord): NetworkPlace {
    const { instance, stateDirectory, runDirectory } = this.#options;
    return {
      id: network.id,
      number: network.number,
      name: network.name,
      kind: network.kind,
      instance,
      ...(network.subnet === undefined ? {} : { subnet: network.subnet }),
      ...(network.bridge === undefined ? {} : { bridge: network.bridge }),
      stateDirectory: join(stateDirectory, 'networks', network.id),
      runDirectory: join(runDirectory, 'networks', network.id),
    };
  }

  /** Takes up what an earlier daemon left, and mends every network. */
  recover(leftovers: readonly OperationRecord[], signal: AbortSignal): void {
    const { inventory } = this.#options;
    const unfinished = new Set(leftovers.map((record) => record.subject.id));
    for (const network of inventory.networks.all()) {
      if (unfinished.has(network.id) || network.state !== 'ready') continue;
      void this.#mailbox(network.id).post(() => this.#mendOne(network, signal));
    }
    for (const record of leftovers) this.#enqueue(record);
  }

  async #mendOne(network: NetworkRecord, signal: AbortSignal): Promise<void> {
    try {
      await this.#backendFor(network.kind).ensure(this.place(network), signal);
      this.#broken.delete(network.id);
    } catch (error) {
      if (signal.aborted) return;
      this.#broken.add(network.id);
      this.#options.log.error({ err: error, network: network.name }, 'network could not be mended');
    }
    await this.#records.keep(network);
  }

  /** Puts back what somebody took away of networks that should be there: rules, the bridge, the DHCP server. */
  async mend(signal: AbortSignal): Promise<void> {
    for (const network of this.#options.inventory.networks.all()) {
      if (signal.aborted) return;
      if (network.state !== 'ready' || this.#mailbox(network.id).busy) continue;
      await this.#mailbox(network.id).post(() => this.#mendOne(network, signal));
    }
  }

  /** Whether its mailbox is at work. */
  isBusy(id: string): boolean {
    return this.#mailboxes.get(id as NetworkId)?.busy ?? false;
  }

  /** What a network has on the host. */
  objectsOf(network: NetworkRecord): readonly HostObject[] {
    return [...this.#backendFor(network.kind).plan(this.place(network)), this.#records.object(network.id)];
  }

  /** Makes one network whole again, and its rows. Errors: as `ensure` of its backend. */
  async repair(id: NetworkId, signal: AbortSignal): Promise<void> {
    await this.#mailbox(id).post(async () => {
      const { inventory, clock } = this.#options;
      const network = inventory.networks.find(id);
      if (network?.state !== 'ready') return;
      inventory.db.soon(() =>
        inventory.ledger.record({ kind: 'network', id }, 'existence', this.objectsOf(network), clock.now()),
      );
      await this.#backendFor(network.kind).ensure(this.place(network), signal);
      this.#broken.delete(id);
      await this.#records.write(network);
    });
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#mailboxes.values()].map((mailbox) => mailbox.idle()));
  }

  /** Each once, sorted by name. */
  #named(references: readonly string[]): readonly NetworkRecord[] {
    const found = references.map((reference) => this.#find(reference));
    return [...new Map(found.map((network) => [network.name, network])).values()].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    );
  }

  #find(reference: string): NetworkRecord {
    const network = this.#options.inventory.networks.find(reference);
    if (network) return network;
    throw new RoostError('NotFound', `There is no network called ${reference}`, {
      data: { network: reference },
      hint: 'query-networks lists them; network-create makes one.',
    });
  }

  #mailbox(id: NetworkId): Mailbox {
    const before = this.#mailboxes.get(id);
    if (before) return before;
    const mailbox = new Mailbox();
    this.#mailboxes.set(id, mailbox);
    // Whoever asks for it posts to it at once.
    queueMicrotask(() => void this.#forgetWhenIdle(id, mailbox));
    return mailbox;
  }

  /** Networks come and go; a mailbox without work is made anew when there is some. */
  async #forgetWhenIdle(id: NetworkId, mailbox: Mailbox): Promise<void> {
    do await mailbox.idle();
    while (mailbox.busy);
    this.#mailboxes.delete(id);
  }

  #backendFor(kind: NetworkKind): NetworkBackend {
    const backend = this.#options.backends.find((each) => each.kinds.includes(kind));
    if (backend) return backend;
    throw new RoostError('Unsupported', `This daemon cannot make networks of kind ${kind}`, {
      data: { kind },
      hint: 'Bridged networks need a daemon that runs as root; without it use kind user.',
    });
  }

  /** One network a bridge: two would keep two accounts of the addresses on it. */
  #refuseJoinedTwice(bridge: string | undefined): void {
    const other = this.#options.inventory.networks.all().find((network) => network.bridge === bridge);
    if (bridge === undefined || other === undefined) return;
    throw new RoostError('AlreadyExists', `The bridge ${bridge} is network ${other.name} already`, {
      data: { bridge, network: other.name },
      hint: 'Attach guests to that network.',
    });
  }

  #namesOf(network: NetworkRecord): Pick<NetworkView, 'names'> {
    const names = this.#backendFor(network.kind).namesOf?.(this.place(network));
    return names === undefined ? {} : { names: { ...names } };
  }

  #bridgeOf(network: NetworkRecord): { bridge?: string } {
    if (network.bridge !== undefined) return { bridge: network.bridge };
    const bridge = this.#backendFor(network.kind)
      .plan(this.place(network))
      .find((object) => object.kind === 'bridge');
    return bridge ? { bridge: bridge.name } : {};
  }

  #enqueue(record: OperationRecord): Accepted {
    const mailbox = (): Mailbox => this.#mailbox(record.subject.id as NetworkId);
    return enqueue(this.#options.operations, record, mailbox, (each) => this.#workOf(each));
  }

  #workOf(record: OperationRecord): OperationWork | undefined {
    const network = this.#options.inventory.networks.find(record.subject.id);
    if (!network) return undefined;
    return record.kind === 'network-create' ? this.#making(network) : this.#removing(network);
  }

  #making(network: NetworkRecord): OperationWork {
    const { inventory, events } = this.#options;
    const backend = this.#backendFor(network.kind);
    const place = this.place(network);
    const make: Step = {
      name: 'make',
      do: async (work) => {
        await backend.ensure(place, work.signal);
        for (const object of backend.plan(place)) enter({ kind: 'made', object: hostObjectKey(object) });
      },
      undo: () => this.#removal(network),
    };
    return {
      steps: [make, this.#records.step(network)],
      options: {
        finish: (state, clean) => {
          if (state === 'succeeded') {
            inventory.networks.setState(network.id, 'ready');
            events.emit({
              event: 'NETWORK_CHANGED',
              data: { network: network.id, name: network.name, change: 'created' },
            });
          } else this.#forget(network, clean);
          return undefined;
        },
      },
    };
  }

  #removing(network: NetworkRecord): OperationWork {
    const { inventory, events } = this.#options;
    const remove: Step = { name: 'remove', do: () => this.#removal(network) };
    return {
      steps: [remove],
      options: {
        cancellable: false,
        finish: (state) => {
          if (state === 'succeeded') {
            this.#forget(network, true);
            events.emit({
              event: 'NETWORK_CHANGED',
              data: { network: network.id, name: network.name, change: 'deleted' },
            });
          } else if (state === 'cancelled')
            inventory.networks.setState(network.id, network.reason ? 'failed' : 'ready', network.reason);
          else inventory.networks.setState(network.id, 'failed', 'it could not be removed');
          return undefined;
        },
      },
    };
  }

  #removal(network: NetworkRecord): Promise<void> {
    return cleanUp(this.#options, `the removal of network ${network.name}`, async (signal) => {
      await this.#backendFor(network.kind).remove(this.place(network), signal);
      // Last: while it is there, something of the network may be there.
      await this.#records.remove(network.id);
    });
  }

  #forget(network: NetworkRecord, clean: boolean): void {
    this.#options.inventory.networks.delete(network.id);
    if (clean) this.#options.inventory.ledger.release({ kind: 'network', id: network.id });
    this.#broken.delete(network.id);
  }
}

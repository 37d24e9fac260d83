/**
 * The record of a guest of which none is left, from what its live process tells and what of it is on the host. All that
 * it says is certain; what no process knows has its default, and is listed.
 */
import type { Driver, FoundProcess, GuestPlace, ReconstructedGuest } from '../../drivers/driver.ts';
import type { BlockSource } from '../../protocol/block-source.ts';
import { RoostError } from '../../protocol/errors.ts';
import { guestSpec } from '../../protocol/guest.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { NetPort } from '../../protocol/net-port.ts';
import { guestName, type ImageId } from '../../protocol/types.ts';
import type { GuestRecord, StoredNic } from '../inventory/guest-table.ts';
import type { NetworkRecord } from '../inventory/network-table.ts';
import type { House } from './house.ts';
import { placeOf } from './place.ts';

export interface RebuiltRecord {
  readonly record: Pick<GuestRecord, 'id' | 'name' | 'spec' | 'machine' | 'createdAt' | 'generation'> & {
    /** Undefined where nothing is called by it: then it may be any. */
    readonly number: number | undefined;
  };
  /** In words. */
  readonly unknown: readonly string[];
}

/** A link has room for one character. */
const PORTS = 36;

/** What no process knows, with what it is from now on. */
const UNKNOWN = [
  'description and labels: none',
  'autostart: off; restart policy: never; deletion: not protected; time to stop: the default',
  'disks that were detached and kept: none are; their files stay beside the others',
  'directories of the host: none from the next start on; disks that are copies of some stay, mounted by nobody',
  'how many serial numbers were given: the next disk may get that of one that was deleted',
  'when it was made: the time of this adoption',
];

class Rebuilding {
  readonly #house: House;
  readonly #found: FoundProcess;
  readonly #host: ReadonlySet<string>;
  readonly unknown: string[] = [...UNKNOWN];

  constructor(house: House, found: FoundProcess, host: readonly HostObject[]) {
    this.#house = house;
    this.#found = found;
    this.#host = new Set(host.map(hostObjectKey));
  }

  refuse(why: string): never {
    const { process, name, guest } = this.#found;
    throw new RoostError(
      'FailedPrecondition',
      `Guest ${name} has no record, and its process does not tell enough: ${why}`,
      {
        data: { pid: process.pid, guest },
        hint: 'Shut it down from inside, or end the process; its disks stay.',
      },
    );
  }

  name(): string {
    return guestName.safeParse(this.#found.name).data ?? this.refuse(`it is called ${this.#found.name}`);
  }

  /** By the uid that it runs under; where all run under one, nothing has a number in its name. */
  number(uid: number): number | undefined {
    const first = placeOf(this.#house, { id: this.#found.guest, number: 1 }).credentials;
    if (first === undefined) return undefined;
    const number = uid - first.uid + 1;
    const { credentials } = placeOf(this.#house, { id: this.#found.guest, number });
    return number > 0 && credentials?.uid === uid ? number : this.refuse(`user ${uid} is none of a guest`);
  }

  image(source: Pick<BlockSource, 'path'> | undefined): { readonly image?: ImageId } {
    if (source === undefined) return {};
    const { images, inventory } = this.#house;
    const image = inventory.images
      .all()
      .find(({ id, state }) => state === 'ready' && images.source(id).path === source.path);
    return image ? { image: image.id } : this.refuse(`${source.path} is no image of the inventory`);
  }

  disk(name: string, source: BlockSource): GuestRecord['spec']['disks'][number] {
    const { pool, images } = this.#house;
    const { sizeBytes, readOnly, path, backing } = source;
    const { image } = this.image(backing);
    const base = image === undefined ? {} : { base: images.source(image) };
    const expected = pool.source({ guest: this.#found.guest, name, sizeBytes, readOnly, ...base });
    if (expected.path !== path || expected.backing?.backing !== backing?.backing)
      this.refuse(`disk ${name} lies at ${path}`);
    return { name, sizeBytes, readOnly, ...(image === undefined ? {} : { image }) };
  }

  nic(name: string, port: NetPort, number: number | undefined): StoredNic {
    const { mac } = port;
    if (port.kind === 'tap') return { name, mac, ...this.#tapped(name, port, number ?? 0) };
    if (port.kind === 'veth') this.refuse(`its NIC ${name} is the veth pair ${port.link}`);
    const networks = this.#networks(({ kind }) => kind === 'user');
    const [network, ...more] = networks;
    if (!network || more.length > 0)
      this.refuse(`its NIC ${name} is on one of ${networks.length} networks of kind user`);
    const { forwards } = port;
    return { name, mac, network: network.id, ...(forwards === undefined ? {} : { forwards }) };
  }

  /** The port whose objects are all on the host under this very link, and no other. */
  #tapped(
    name: string,
    { link, mac }: Extract<NetPort, { kind: 'tap' }>,
    number: number,
  ): Pick<StoredNic, 'network' | 'ipv4' | 'port'> {
    const addresses = [undefined, ...this.#addressesOf(link, mac)];
    const fitting = this.#networks(({ kind }) => kind !== 'user').flatMap((network) =>
      addresses.flatMap((ipv4) =>
        Array.from({ length: PORTS }, (_, port) => ({ network, ipv4, port })).filter((each) =>
          this.#fits(each, link, mac, number),
        ),
      ),
    );
    const [one, ...more] = fitting;
    if (!one || more.length > 0) this.refuse(`its NIC ${name} fits ${fitting.length} networks`);
    const { network, ipv4, port } = one;
    return { network: network.id, port, ...(ipv4 === undefined ? {} : { ipv4 }) };
  }

  #fits(
    {
      network,
      ipv4,
      port,
    }: { readonly network: NetworkRecord; readonly ipv4: string | undefined; readonly port: number },
    link: string,
    mac: StoredNic['mac'],
    guestNumber: number,
  ): boolean {
    const { networks } = this.#house;
    if (!networks.mayHave(network, ipv4)) return false;
    const plan = networks.planPort(network.id, {
      guest: this.#found.guest,
      guestNumber,
      guestName: this.#found.name,
      index: port,
      mac,
      ...(ipv4 === undefined ? {} : { ipv4 }),
    });
    return (
      plan.port.kind === 'tap' &&
      plan.port.link === link &&
      plan.objects.every((object) => this.#host.has(hostObjectKey(object)))
    );
  }

  /** Addresses that the rules on the host let this port use. */
  #addressesOf(link: string, mac: string): readonly string[] {
    return [...this.#host].flatMap((key) =>
      key.includes(`/${link} . ${mac} . `) ? (key.split(' . ').at(-1) ?? []) : [],
    );
  }

  #networks(fits: (network: NetworkRecord) => boolean): readonly NetworkRecord[] {
    return this.#house.inventory.networks.all().filter((each) => each.state === 'ready' && fits(each));
  }
}

const bootOf = (rebuilding: Rebuilding, boot: ReconstructedGuest['boot']): GuestRecord['spec']['boot'] => {
  if (boot.kind === 'disk') return boot;
  if (boot.kind === 'root') return rebuilding.refuse('it is a container');
  const { kernelPath, initrdPath, commandLine } = boot;
  const kernel = rebuilding.image({ path: kernelPath }).image;
  const initrd = initrdPath === undefined ? undefined : rebuilding.image({ path: initrdPath }).image;
  if (kernel === undefined) return rebuilding.refuse(`${kernelPath} is no image`);
  return { kind: 'kernel', kernel, commandLine, ...(initrd === undefined ? {} : { initrd }) };
};

/**
 * By the driver that found the process; undefined where that cannot tell. Errors: FailedPrecondition where something cannot
 * be told for certain; those of the driver.
 */
export const rebuildRecord = async (
  house: House,
  driver: Driver,
  found: FoundProcess,
  {
    place,
    hostObjects,
  }: { readonly place: GuestPlace; readonly hostObjects: () => Promise<readonly HostObject[]> },
): Promise<RebuiltRecord | undefined> => {
  const told = await driver.reconstruct?.(found, place, house.stopping);
  if (!told) return undefined;
  const rebuilding = new Rebuilding(house, found, await hostObjects());
  const name = rebuilding.name();
  const number = rebuilding.number(told.uid);
  const { machine, disks, nics, cdroms = [], seed, boot } = told;
  if (seed !== undefined)
    rebuilding.unknown.push(
      'what cloud-init was told: nothing from the next start on; the guest keeps what it took up',
    );
  if (told.qemu.accel === 'auto')
    rebuilding.unknown.push(`whether ${told.accel} was insisted on: it is chosen anew at each start`);
  const defaults = guestSpec.parse({ name, driver: driver.name });
  const { description, labels, autostart, restartPolicy, deleteProtection, stopTimeoutMs } = defaults;
  const spec: GuestRecord['spec'] = {
    driver: driver.name,
    firmware: machine.firmware === undefined ? 'bios' : 'uefi',
    memoryBytes: told.memoryBytes,
    cpu: told.cpu,
    boot: bootOf(rebuilding, boot),
    agent: { enabled: told.agent },
    qemu: told.qemu,
    limits: {},
    filesystems: [],
    disks: machine.disks.map((disk, index) => {
      const source = disks[index];
      return source ? rebuilding.disk(disk.name, source) : rebuilding.refuse(`disk ${disk.name} has no file`);
    }),
    cdroms: (machine.cdroms ?? []).map((drive, index) => ({
      name: drive.name,
      ...rebuilding.image(cdroms[index]),
    })),
    keptDisks: [],
    nics: machine.nics.map((nic, index) => {
      const port = nics[index];
      return port ? rebuilding.nic(nic.name, port, number) : rebuilding.refuse(`NIC ${nic.name} has no port`);
    }),
    description,
    labels,
    autostart,
    restartPolicy,
    deleteProtection,
    stopTimeoutMs,
  };
  const createdAt = house.clock.now();
  return {
    record: { id: found.guest, number, name, spec, machine, createdAt, generation: 1 },
    unknown: rebuilding.unknown,
  };
};

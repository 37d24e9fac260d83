/** Guests as recorded: what was asked (guest), what was seen (status) and the addresses kept for NICs (address). */
import type { PinnedMachine, ProcessIdentity } from '../../drivers/driver.ts';
import type { CloudInitSpec } from '../../protocol/cloud-init.ts';
import type { IdRange } from '../../protocol/container.ts';
import type { FilesystemSpec } from '../../protocol/filesystem.ts';
import type { Frozen, GuestSpec, GuestState, GuestTarget } from '../../protocol/guest.ts';
import type { Readiness } from '../../protocol/guest-address.ts';
import type { PortForward } from '../../protocol/net-port.ts';
import type { Actor, GuestId, ImageId, MacAddress, NetworkId, OperationId } from '../../protocol/types.ts';
import type { Database } from './database.ts';
import { imagesUsed } from './images-used.ts';
import { storedJson } from './stored-json.ts';

/** With the number of the instance-id, and a digest of all of it. */
export interface StoredCloudInit extends CloudInitSpec {
  readonly instance: number;
  readonly digest: string;
}

/** A guest's spec with every reference resolved and every default filled in. */
export interface StoredSpec
  extends Omit<
    GuestSpec,
    | 'name'
    | 'machine'
    | 'boot'
    | 'agent'
    | 'program'
    | 'disks'
    | 'cdroms'
    | 'nics'
    | 'filesystems'
    | 'cloudInit'
  > {
  readonly cloudInit?: StoredCloudInit;
  /** Of a guest that is kept to be forked, and runs no more. */
  readonly template?: StoredTemplate;
  /** Of a guest that is nobody's yet: it waits, prepared and paused, for somebody who asks for one like it. */
  readonly waiting?: { readonly since: number };
  /** The template that its disks lie on, and whose memory its first run begins with. */
  readonly forkOf?: GuestId;
  /** Of a guest that boots a container image. */
  readonly program?: StoredProgram;
  readonly boot:
    | { readonly kind: 'disk' }
    | {
        readonly kind: 'kernel';
        readonly kernel: ImageId;
        readonly initrd?: ImageId;
        readonly commandLine: string;
      }
    | (Omit<Extract<GuestSpec['boot'], { kind: 'root' }>, 'image'> & { readonly image: ImageId });
  /** Of a container: ids of the host that it has for good. */
  readonly idRange?: IdRange;
  readonly agent: { readonly enabled: boolean };
  readonly disks: readonly StoredDisk[];
  readonly cdroms: readonly StoredCdrom[];
  /** Detached and not deleted: the guest's own until they are, and attached to no other. */
  readonly keptDisks: readonly KeptDisk[];
  readonly nics: readonly StoredNic[];
  /** Directories of the host that are shared; those that are copied are disks. */
  readonly filesystems: readonly StoredFilesystem[];
}

export type StoredFilesystem = Omit<FilesystemSpec, 'mode'>;

export interface StoredTemplate {
  readonly madeAt: number;
  /** By which its forks are known. */
  readonly token: string;
  /** In which round: each time that it is made anew it writes into new files, over those of the first. */
  readonly round?: number;
  /** The operation that makes it anew, in the round after this. */
  readonly remadeBy?: OperationId;
  /** Somebody has stopped it to have its memory: it is made anew when somebody says so. */
  readonly released?: true;
  /** Where it was made of a guest that ran: that guest, and the addresses that the interfaces in its memory have. */
  readonly madeOf?: { readonly guest: GuestId; readonly macs: readonly string[] };
}

/** What is run in a guest as its main program: of the image's config and of what was asked for, put together. */
export interface StoredProgram {
  readonly image: ImageId;
  readonly argv: readonly string[];
  /** NAME=VALUE; the whole of it. */
  readonly environment: readonly string[];
  readonly workingDirectory?: string;
  readonly user?: string;
  readonly terminal?: boolean;
  readonly interactive?: boolean;
  /** As SIGTERM. */
  readonly stopSignal: string;
}

/** How the main program of a guest ended: one of the two is there. */
export interface ProgramEnd {
  readonly exitCode?: number;
  readonly signal?: number;
}

export interface StoredDisk {
  readonly name: string;
  /** Lies on the disk of that name of this template, which lies on `image`. */
  readonly template?: GuestId;
  /** Of which of its rounds; absent for the first. */
  readonly templateRound?: number;
  /** Of a template's own: into the files of which round it writes, each over that of the first. */
  readonly round?: number;
  readonly image?: ImageId;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** How often its guest has become a fork of itself: each time it writes over what was, into a new file. */
  readonly layer?: number;
  /** It holds what this directory of the host held when the guest was made, or its template. */
  readonly copyOf?: StoredFilesystem;
}

export interface StoredCdrom {
  readonly name: string;
  readonly image?: ImageId;
  /** While the medium is being changed: what was in the drive before, for the undo. */
  readonly change?: { readonly from?: ImageId };
}

export interface KeptDisk extends StoredDisk {
  /** The one that it had, and has again when it is attached. */
  readonly serial: string;
}

export interface StoredNic {
  readonly name: string;
  readonly network: NetworkId;
  readonly mac: MacAddress;
  readonly ipv4?: string;
  /** Absent where there are none. */
  readonly forwards?: readonly PortForward[];
  /** Number of its port, part of the link's name on the host; its place among the NICs unless given. */
  readonly port?: number;
}

export interface GuestRecord {
  readonly id: GuestId;
  readonly number: number;
  readonly name: string;
  readonly spec: StoredSpec;
  readonly machine: PinnedMachine;
  readonly target: GuestTarget;
  readonly targetActor: Actor;
  readonly generation: number;
  readonly createdAt: number;
}

/** Settings of the machine that a process was launched with; `cloudInit` is the digest of what it was told. */
export interface AppliedSettings
  extends Pick<StoredSpec, 'memoryBytes' | 'cpu' | 'boot' | 'agent' | 'qemu' | 'limits'> {
  readonly cloudInit?: string;
  /** Whether it began with the memory of its template. */
  readonly forked?: boolean;
  /** Of a fork: whether it knows that it is itself. Absent of one that an earlier Roost launched: then it does if it is ready. */
  readonly renewed?: boolean;
  /** Of one that waited: it knows all but its name. Absent once it has been booted. */
  readonly prepared?: true;
  /** It was stopped to be handed over to another process, by this operation. */
  readonly handedOverBy?: OperationId;
  /** The start that did it, written before the process is made; absent for one of before this was kept. */
  readonly launchedBy?: OperationId;
}

export interface GuestStatus {
  readonly state: GuestState;
  readonly reason?: string;
  readonly observedAt: number;
  /** Place in the driver's own record of events up to which all was observed. */
  readonly cursor: number;
  readonly process?: ProcessIdentity & {
    readonly startedAt: number;
    readonly accel: string;
    /** Proof that the guest is up, the first of this run. */
    readonly ready?: Readiness;
    /** Written before its agent is asked to freeze, taken away when it is known to be thawed. */
    readonly frozen?: Frozen;
    /** While its monitor is silent. */
    readonly silentSince?: number;
    /** Its main program has ended, and so will it. */
    readonly programEnd?: ProgramEnd;
    /** When it was found that nobody serves a directory any more, by the name of the file system. */
    readonly lostFilesystems?: Readonly<Record<string, number>>;
  };
  /** Generation-independent copy of the machine settings the running process was launched with. */
  readonly applied?: AppliedSettings;
  readonly lastExit?: { readonly at: number; readonly cause: string; readonly detail?: string } & ProgramEnd;
  /** When its memory was begun from its template's: its disks have gone on since, and it never is again. */
  readonly forkedAt?: number;
  readonly restartCount: number;
  readonly restartAt?: number;
}

interface GuestRow {
  number: number;
  id: string;
  name: string;
  spec: string;
  machine: string;
  target: GuestTarget;
  target_actor: string;
  generation: number;
  created_at: number;
}

interface StatusRow {
  guest: string;
  state: string;
  reason: string | null;
  observed_at: number;
  cursor: number;
  process: string | null;
  applied: string | null;
  last_exit: string | null;
  restart_count: number;
  restart_at: number | null;
  forked_at: number | null;
}

const json = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value));

/** Members that came later, for what was written before them. */
const laterMembers: Pick<StoredSpec, 'agent' | 'firmware' | 'limits'> = {
  agent: { enabled: false },
  firmware: 'bios',
  limits: {},
};

type LaterSpecMembers = Pick<StoredSpec, 'agent' | 'limits' | 'cdroms' | 'keptDisks' | 'filesystems'>;
const laterSpecMembers: LaterSpecMembers = { ...laterMembers, cdroms: [], keptDisks: [], filesystems: [] };

const withLaterMembers = <T extends object>(stored: T): T => ({ ...laterMembers, ...stored });

const fromGuestRow = (row: GuestRow): GuestRecord => ({
  id: row.id as GuestId,
  number: row.number,
  name: row.name,
  spec: { ...laterSpecMembers, ...(storedJson(row.spec) as Omit<StoredSpec, keyof LaterSpecMembers>) },
  machine: storedJson(row.machine) as PinnedMachine,
  target: row.target,
  targetActor: row.target_actor,
  generation: row.generation,
  createdAt: row.created_at,
});

const fromStatusRow = (row: StatusRow): GuestStatus => ({
  state: row.state as GuestState,
  observedAt: row.observed_at,
  cursor: row.cursor,
  restartCount: row.restart_count,
  ...(row.reason === null ? {} : { reason: row.reason }),
  ...(row.process === null
    ? {}
    : { process: storedJson(row.process) as NonNullable<GuestStatus['process']> }),
  ...(row.applied === null
    ? {}
    : { applied: withLaterMembers(storedJson(row.applied) as NonNullable<GuestStatus['applied']>) }),
  ...(row.last_exit === null
    ? {}
    : { lastExit: storedJson(row.last_exit) as NonNullable<GuestStatus['lastExit']> }),
  ...(row.restart_at === null ? {} : { restartAt: row.restart_at }),
  ...(row.forked_at === null ? {} : { forkedAt: row.forked_at }),
});

export type NewGuest = Omit<GuestRecord, 'number' | 'generation'>;
/** What a guest that was in the inventory before had of it. */
export type BeforeLoss = Pick<GuestRecord, 'number' | 'generation'>;

export class GuestTable {
  readonly #insert;
  readonly #update;
  readonly #delete;
  readonly #all;
  readonly #count;
  readonly #byId;
  readonly #byName;
  readonly #statuses;
  readonly #writeStatus;
  readonly #insertAddress;
  readonly #deleteAddress;
  readonly #addressesOf;
  readonly #macTaken;
  readonly #forksOf;
  readonly #forwards;
  readonly #nextNumber;
  readonly #idRanges;
  readonly #insertImageUse;
  readonly #deleteImageUses;

  constructor(db: Database) {
    this.#insert = db.prepare<
      [number | null, string, string, string, string, string, string, number, number],
      GuestRow
    >(
      `INSERT INTO guest (number, id, name, spec, machine, target, target_actor, generation, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *`,
    );
    this.#update = db.prepare<[string, string, string, string, string, number, string], GuestRow>(
      `UPDATE guest SET name = ?, spec = ?, machine = ?, target = ?, target_actor = ?, created_at = ?, generation = generation + 1
       WHERE id = ? RETURNING *`,
    );
    this.#delete = db.prepare<[string], never>('DELETE FROM guest WHERE id = ?');
    this.#all = db.prepare<[], GuestRow>('SELECT * FROM guest ORDER BY number');
    this.#count = db.prepare<[], { guests: number; live: number }>(
      'SELECT count(*) AS guests, count(status.process) AS live FROM guest LEFT JOIN status ON status.guest = guest.id',
    );
    this.#byId = db.prepare<[string], GuestRow>('SELECT * FROM guest WHERE id = ?');
    this.#byName = db.prepare<[string], { id: string }>('SELECT id FROM guest WHERE name = ?');
    this.#statuses = db.prepare<[], StatusRow>('SELECT * FROM status');
    this.#writeStatus = db.prepare<[StatusRow], never>(
      `INSERT INTO status VALUES (@guest, @state, @reason, @observed_at, @cursor, @process, @applied, @last_exit, @restart_count, @restart_at, @forked_at)
       ON CONFLICT (guest) DO UPDATE SET state = @state, reason = @reason, observed_at = @observed_at, cursor = @cursor,
         process = @process, applied = @applied, last_exit = @last_exit, restart_count = @restart_count, restart_at = @restart_at, forked_at = @forked_at`,
    );
    this.#insertAddress = db.prepare<[string, string, string, string, string | null], never>(
      'INSERT INTO address (guest, nic, network, mac, ipv4) VALUES (?, ?, ?, ?, ?)',
    );
    this.#deleteAddress = db.prepare<[string, string], never>(
      'DELETE FROM address WHERE guest = ? AND nic = ?',
    );
    this.#addressesOf = db.prepare<[string], { ipv4: string }>(
      'SELECT ipv4 FROM address WHERE network = ? AND ipv4 IS NOT NULL',
    );
    this.#forksOf = db.prepare<[string], { name: string }>(
      "SELECT name FROM guest WHERE json_extract(spec, '$.forkOf') = ? AND json_extract(spec, '$.waiting') IS NULL ORDER BY name",
    );
    this.#macTaken = db.prepare<[string], { guest: string }>('SELECT guest FROM address WHERE mac = ?');
    this.#forwards = db.prepare<[], { name: string; forward: string }>(
      `SELECT guest.name AS name, forward.value AS forward FROM guest,
         json_each(guest.spec, '$.nics') AS nic, json_each(nic.value, '$.forwards') AS forward`,
    );
    this.#nextNumber = db.prepare<[], { number: number }>(
      "SELECT seq + 1 AS number FROM sqlite_sequence WHERE name = 'guest'",
    );
    this.#idRanges = db.prepare<[], { idRange: string }>(
      `SELECT json_extract(spec, '$.idRange') AS idRange FROM guest WHERE idRange IS NOT NULL`,
    );
    this.#insertImageUse = db.prepare<[string, string], never>(
      'INSERT OR IGNORE INTO image_use (guest, image) VALUES (?, ?)',
    );
    this.#deleteImageUses = db.prepare<[string], never>('DELETE FROM image_use WHERE guest = ?');
  }

  all(): { record: GuestRecord; status: GuestStatus | undefined }[] {
    const statuses = new Map(this.#statuses.all().map((row) => [row.guest, row]));
    return this.#all.all().map((row) => {
      const status = statuses.get(row.id);
      return { record: fromGuestRow(row), status: status && fromStatusRow(status) };
    });
  }

  /** How many there are, and how many of them are known to have a process. */
  count(): { readonly guests: number; readonly live: number } {
    return this.#count.get() ?? { guests: 0, live: 0 };
  }

  byId(id: GuestId): GuestRecord | undefined {
    const row = this.#byId.get(id);
    return row && fromGuestRow(row);
  }

  idByName(name: string): GuestId | undefined {
    return this.#byName.get(name)?.id as GuestId | undefined;
  }

  /** The guest with its addresses and image uses, in the transaction of the caller. */
  insert(guest: NewGuest, before?: BeforeLoss): GuestRecord {
    const row = this.#insert.get(
      before?.number ?? null,
      guest.id,
      guest.name,
      JSON.stringify(guest.spec),
      JSON.stringify(guest.machine),
      guest.target,
      guest.targetActor,
      before?.generation ?? 1,
      guest.createdAt,
    );
    if (!row) throw new Error('INSERT … RETURNING gave no row');
    for (const nic of guest.spec.nics) this.keepAddress(guest.id, nic);
    this.#useImages(guest.id, guest.spec);
    return fromGuestRow(row);
  }

  update(guest: GuestRecord): GuestRecord {
    const row = this.#update.get(
      guest.name,
      JSON.stringify(guest.spec),
      JSON.stringify(guest.machine),
      guest.target,
      guest.targetActor,
      guest.createdAt,
      guest.id,
    );
    if (!row) throw new Error(`Guest ${guest.id} is not in the inventory`);
    this.#useImages(guest.id, guest.spec);
    return fromGuestRow(row);
  }

  delete(id: GuestId): void {
    this.#delete.run(id);
  }

  writeStatus(id: GuestId, status: GuestStatus): void {
    this.#writeStatus.run({
      guest: id,
      state: status.state,
      reason: status.reason ?? null,
      observed_at: status.observedAt,
      cursor: status.cursor,
      process: json(status.process),
      applied: json(status.applied),
      last_exit: json(status.lastExit),
      restart_count: status.restartCount,
      restart_at: status.restartAt ?? null,
      forked_at: status.forkedAt ?? null,
    });
  }

  /** Names of the guests whose disks lie on those of a template, but for those that wait for somebody. */
  forksOf(template: GuestId): readonly string[] {
    return this.#forksOf.all(template).map((row) => row.name);
  }

  addressesOf(network: NetworkId): readonly string[] {
    return this.#addressesOf.all(network).map((row) => row.ipv4);
  }

  /** Keeps the addresses of a NIC for it, in the transaction that records the NIC. */
  keepAddress(guest: GuestId, nic: StoredNic): void {
    this.#insertAddress.run(guest, nic.name, nic.network, nic.mac, nic.ipv4 ?? null);
  }

  releaseAddress(guest: GuestId, nic: string): void {
    this.#deleteAddress.run(guest, nic);
  }

  macTaken(mac: string): boolean {
    return this.#macTaken.get(mac) !== undefined;
  }

  /** Ports of the host that are kept for guests, each with the name of its guest. */
  forwards(): readonly (PortForward & { readonly guest: string })[] {
    return this.#forwards
      .all()
      .map(({ name, forward }) => ({ ...(JSON.parse(forward) as PortForward), guest: name }));
  }

  /** Of the guest that is inserted next, in the transaction that does. */
  nextNumber(): number {
    return this.#nextNumber.get()?.number ?? 1;
  }

  /** Of all containers. */
  idRanges(): readonly IdRange[] {
    return this.#idRanges.all().map(({ idRange }) => JSON.parse(idRange) as IdRange);
  }

  #useImages(guest: GuestId, spec: StoredSpec): void {
    this.#deleteImageUses.run(guest);
    for (const image of imagesUsed(spec)) this.#insertImageUse.run(guest, image);
  }
}

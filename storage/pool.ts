/**
 * The contracts of storage: a pool, which keeps the volumes of guests, and an image store, which keeps the read-only
 * images under them. Storage yields a `BlockSource` for each volume; what consumes it is none of its business.
 *
 * Words. *Volume*: one disk of one guest. *Base*: the image under a volume; shared, never written. *Record*: the guest's
 * own record, kept beside its volumes so that the inventory can be rebuilt from the disks. *Root*: what a container writes
 * on top of the image that it has as its root file system. *Seed*: a small read-only disk
 * of a few text files, from which a guest learns who it is at its first boot.
 *
 * Rules every pool keeps; `test/conformance/pool.ts` holds it to them:
 * - `createVolume` and `deleteVolume` may be done again after any crash: a finished one changes nothing.
 * - A volume or root is complete or absent; a half-made one is never given out (made under another name, then renamed).
 * - The bytes of a volume never pass through this process.
 * - A base is never written and never removed by a pool.
 * - A seed that is changed is a new file: whoever has the old one open goes on reading the old one.
 */

import type { Work } from '../lib/work.ts';
import type { BlockSource } from '../protocol/block-source.ts';
import type { CommandArguments } from '../protocol/commands.ts';
import type { HostObject } from '../protocol/host-object.ts';
import type { ImageKind, ImageSourceFormat, RootSourceFormat } from '../protocol/image.ts';
import type { OciConfig, OciFacts } from '../protocol/oci.ts';
import type { RootSource } from '../protocol/root-source.ts';
import type { GuestId, ImageId } from '../protocol/types.ts';

/** Numeric owner of a guest's files; absent when the daemon has no privileges and all is its own. */
export interface VolumeOwner {
  readonly uid: number;
  readonly gid: number;
}

export interface VolumeSpec {
  readonly guest: GuestId;
  /** Name of the disk, unique in its guest. */
  readonly name: string;
  /** Of several files that the disk had one after the other, which one: absent for the first. */
  readonly layer?: number;
  /** Virtual size; at least that of the base. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly base?: BlockSource;
  readonly owner?: VolumeOwner;
  /** A guest that keeps an empty volume just like this one; see `shareVolume`. */
  readonly like?: GuestId;
  /** A directory of the host, absolute, that a volume without a base is to hold when it is made, as a squashfs. */
  readonly copyOf?: string;
}

/** The root file system of a guest that is a container. */
export interface RootSpec {
  readonly guest: GuestId;
  /** A squashfs: of an image of kind `root` or `oci`. */
  readonly image: BlockSource;
}

/** Variables of UEFI firmware: a small file that the guest's firmware writes. */
export interface FirmwareVariables {
  readonly guest: GuestId;
  /** Absolute path of the file to copy. */
  readonly templatePath: string;
  readonly owner?: VolumeOwner;
}

/** The seed of a guest. */
export interface SeedSpec {
  readonly guest: GuestId;
  /** Label of its file system: up to 16 letters, digits and underscores. */
  readonly label: string;
  /** By name: up to 32 of a-z, 0-9 and hyphen. */
  readonly files: Readonly<Record<string, string>>;
  readonly owner?: VolumeOwner;
}

/** One file of a volume. */
export type VolumeFile = Pick<VolumeSpec, 'guest' | 'name' | 'layer'>;

export interface PoolUsage {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** A record as JSON, of whatever form. */
export type KeptRecord = Readonly<Record<string, unknown>>;

export interface KeptRecords {
  readonly records: readonly KeptRecord[];
  /** Absolute paths, each with what is wrong: damaged, of somebody else, a link, or under the id of another. */
  readonly unreadable: readonly { readonly path: string; readonly why: string }[];
}

export interface Pool {
  readonly name: string;
  readonly kind: string;
  readonly path: string;

  /** What `prepareGuest` and `createVolume` make for a guest, for the ledger. Makes nothing. */
  plan(guest: GuestId, volumes: readonly VolumeSpec[]): readonly HostObject[];
  /** Makes the place for a guest's volumes. May be done again. */
  prepareGuest(guest: GuestId, owner: VolumeOwner | undefined): Promise<void>;
  /**
   * Before anything is made. Errors: Unsupported with what is missing; FailedPrecondition where the directory is not there or
   * is none; InvalidArgument for one that no disk can hold.
   */
  requireCopyable(directory: string): Promise<void>;
  /**
   * Errors: ResourceExhausted when the pool is full, InvalidArgument when smaller than its base; those of `requireCopyable`,
   * and FailedPrecondition for a directory that cannot be read as it is. May be done again.
   */
  createVolume(volume: VolumeSpec, work: Work): Promise<void>;
  /**
   * Makes a volume that nobody uses as large as `sizeBytes` says; done already when it is. Errors: ResourceExhausted,
   * FailedPrecondition when it is not there or larger. May be done again.
   */
  growVolume(volume: VolumeSpec, work: Work): Promise<void>;
  /** Bytes that a volume's own file takes on the host, what lies under it not counted; undefined when it is missing. */
  allocatedBytes(volume: VolumeFile): Promise<number | undefined>;
  /**
   * Lets others lie on a volume that is written no more: `readers` is the group that may read it. Keeps an empty one like
   * `over`, which lies on it, for others to be copied from. May be done again. Errors: FailedPrecondition when it is not there.
   */
  shareVolume(
    volume: VolumeFile,
    sharing: { readonly readers: number | undefined; readonly over: VolumeSpec },
    work: Work,
  ): Promise<void>;
  /** Whether nothing was ever written to a volume that was copied from an empty one; false where that cannot be told. */
  isPristine(volume: VolumeSpec): Promise<boolean>;
  /**
   * Makes the file of one guest's volume that of another's as well, for whose process alone it is from then on; what has it
   * open keeps it. May be done again. Errors: FailedPrecondition when it is not there.
   */
  passVolume(volume: VolumeFile, to: VolumeSpec): Promise<void>;
  /** Gives a volume that nobody lies on back to its guest. May be done again; done already when it is not there. */
  reclaimVolume(volume: VolumeSpec): Promise<void>;
  /** May be done again. */
  deleteVolume(volume: VolumeFile): Promise<void>;
  /** The volume with its whole chain. Pure: says where it is, not whether. */
  source(volume: VolumeSpec): BlockSource;
  /** Checks that every file of the chain is there, and gives the source. Errors: FailedPrecondition naming the file. */
  lease(volume: VolumeSpec, signal: AbortSignal): Promise<BlockSource>;
  /**
   * Makes a place for what a guest will write on top of its image; what is there already stays. May be done again. Errors:
   * FailedPrecondition when the image is not there, ResourceExhausted.
   */
  prepareRoot(root: RootSpec, work: Work): Promise<void>;
  /**
   * As `prepareRoot`, with a copy of all that another guest has written; done already where a root is. The other must
   * not run, and both are of one image. May be done again. Errors: FailedPrecondition when it has no root, ResourceExhausted.
   */
  cloneRoot(from: GuestId, root: RootSpec, work: Work): Promise<void>;
  /** Before anything is made. Errors: Unsupported with what `saveRoot` lacks. */
  requireSaveable(): Promise<void>;
  /**
   * Makes a file of a guest's root, with the image under it, as a squashfs at `path`, which is absolute and in a directory that is
   * the daemon's alone; done already where a file is. The guest must not run. May be done again; when it fails nothing
   * is left. Errors: those of `requireSaveable`; FailedPrecondition naming what is missing, ResourceExhausted.
   */
  saveRoot(root: RootSpec, path: string, work: Work): Promise<void>;
  /** Removes all that a guest has written, whatever it has made of it. May be done again. */
  removeRoot(guest: GuestId): Promise<void>;
  /** Pure: says where it is, not whether. */
  rootSource(root: RootSpec): RootSource;
  /** Checks that image and place are there, and gives the source. Errors: FailedPrecondition naming what is missing. */
  leaseRoot(root: RootSpec, signal: AbortSignal): Promise<RootSource>;
  /** Where the variables of a guest's UEFI firmware are kept, beside its volumes. Pure. */
  firmwareVariablesPath(guest: GuestId): string;
  /**
   * Copies a guest's first variables there, for the owner to write. Those that are there stay; lost ones are made anew,
   * as the firmware then finds its boot entries again. May be done again. Errors: HostError, ResourceExhausted.
   */
  createFirmwareVariables(variables: FirmwareVariables): Promise<void>;
  /**
   * Makes the seed unless it is there as it should be, and takes older ones of the guest away. May be done again.
   * Errors: ResourceExhausted when the pool is full.
   */
  writeSeed(seed: SeedSpec, work: Work): Promise<BlockSource>;
  /** Where a seed is. Pure: says not whether it is there. */
  seedSource(seed: SeedSpec): BlockSource;
  /** Takes away every seed of a guest. May be done again. */
  deleteSeed(guest: GuestId): Promise<void>;
  /** Writes the guest's record beside its volumes, atomically; `generation` only grows. */
  writeRecord(
    guest: GuestId,
    record: { readonly generation: number; readonly [member: string]: unknown },
  ): Promise<void>;
  /** Every record found, for recovery; what cannot be read or believed is named. */
  readRecords(): Promise<KeptRecords>;
  /** Removes the guest's place with all that is in it. May be done again. */
  removeGuest(guest: GuestId): Promise<void>;
  usage(): Promise<PoolUsage>;
  /** What of this pool is on the host, in the words of the ledger: one directory for each guest. */
  inspect(): Promise<readonly HostObject[]>;
}

/** Where the file of an image comes from. */
export type ImageOrigin =
  /** Absolute path on the host. */
  | { readonly kind: 'file'; readonly path: string }
  | {
      readonly kind: 'url';
      /** http or https, with whatever is secret in it. */
      readonly url: string;
      /** What of it may be shown. */
      readonly shownAs: string;
      /** Certificate authorities in PEM, instead of the host's. */
      readonly authorities?: string | undefined;
    };

export interface ImageImport {
  readonly id: ImageId;
  readonly kind: ImageKind;
  readonly from: ImageOrigin;
  /** Named by whoever imports; never guessed. Of kind `root` an archive, or raw for the squashfs that it is kept as. */
  readonly format: ImageSourceFormat | RootSourceFormat;
  /** Digests of the file as it comes, in lower-case hexadecimal. */
  readonly sha256?: string | undefined;
  readonly sha512?: string | undefined;
  /** Of kind `oci`: what the disk was made of, and what it is. Its files become the image's own, by further links. */
  readonly oci?: (OciFacts & { readonly layout: string }) | undefined;
}

export interface StoredImage {
  readonly format: 'qcow2' | 'raw';
  /** Bytes on the host. */
  readonly sizeBytes: number;
  readonly virtualSizeBytes: number;
  /** Of the file that was imported, in lower-case hexadecimal. */
  readonly sha256: string;
  readonly oci?: OciFacts | undefined;
}

/**
 * Keeps images. An import is distrusted: copied first, read by a throw-away identity under limits, its format named,
 * refused when its header names another file; the result is a fresh file of ours.
 */
export interface ImageStore {
  /** Errors: Unsupported with what is missing to import that kind, before anything is made. */
  refuseUnimportable(kind: ImageKind): Promise<void>;
  /** What an import makes, for the ledger. */
  plan(id: ImageId): readonly HostObject[];
  /**
   * Fetches what has a URL to the workplace, for `import` to find there; nothing to do for a file. Done again after a
   * crash it goes on where it was. Errors: NotFound, InvalidArgument for what the server refuses, Unavailable,
   * ResourceExhausted.
   */
  download(request: ImageImport, work: Work): Promise<void>;
  /**
   * Errors: NotFound for the file, InvalidArgument for one that is not what it claims or points elsewhere,
   * ResourceExhausted. Leaves nothing behind when it fails, but for what was downloaded: that stays until `remove`. May be
   * done again after a crash.
   */
  import(request: ImageImport, work: Work): Promise<StoredImage>;
  /**
   * A directory for whoever makes the file of an image, as a builder does: absolute path, private to the daemon. Made
   * when it is not there; what an earlier call left in it stays. Gone with the end of `import`, and with `remove`.
   */
  workplace(id: ImageId): Promise<string>;
  /**
   * Makes a directory of an image that is a squashfs, with all that is in it as it is there; done already where one is. It is
   * complete or absent, and goes with the image. May be done again, and by several at once. Errors: Unsupported where the daemon
   * may not; FailedPrecondition when the image is not there, ResourceExhausted.
   */
  unpack(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>, work: Work): Promise<void>;
  /** Where an image is unpacked. Pure: says not whether. */
  treePath(id: ImageId): string;
  /** May be done again. */
  remove(id: ImageId): Promise<void>;
  /** What an image of kind `oci` wants run. Errors: FailedPrecondition when it is not there. */
  ociConfig(id: ImageId): Promise<OciConfig>;
  /** Checks that the image's file is there. Errors: FailedPrecondition naming it. */
  check(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>): Promise<void>;
  /**
   * Writes the record of a complete image beside its file, atomically; done already when there is no such image.
   * Removed with it. May be done again.
   */
  writeRecord(id: ImageId, record: KeptRecord): Promise<void>;
  /** Every record found, for recovery; what cannot be read or believed is named. */
  readRecords(): Promise<KeptRecords>;
  /** What is known of the files of an image without any record; undefined where they are not complete. */
  stored(id: ImageId): Promise<StoredImage | undefined>;
  /** Where an image is. Pure. */
  source(id: ImageId, image: Pick<StoredImage, 'format' | 'virtualSizeBytes'>): BlockSource;
  inspect(): Promise<readonly HostObject[]>;
}

export interface BuiltFile {
  readonly path: string;
  readonly format: ImageSourceFormat;
}

/**
 * Makes the file of an image out of packages or other parts. What it runs ends with the daemon's process, so that a
 * crash leaves files and no processes.
 */
/** What to build, by the name of its recipe, and of which release of Debian. */
export interface BuildRequest {
  readonly recipe: CommandArguments<'image-build'>['recipe'];
  readonly suite: string;
  readonly directory: string;
}

export interface ImageBuilder {
  /** Errors: Unsupported with what is missing, before anything is made. */
  refuseUnbuildable(recipe: BuildRequest['recipe'], signal: AbortSignal): Promise<void>;
  /**
   * Builds below `directory`, which is private to this image. A finished build is given again; what a build left half
   * done is removed first. When it is cancelled nothing of it runs any more. Errors: Unsupported, HostError with what
   * the tool said, ResourceExhausted.
   */
  build(request: BuildRequest, work: Work): Promise<BuiltFile>;
  /** Removes what builds left below `directory`; may be done again. */
  clear(directory: string): Promise<void>;
}

/** What a registry, or the server that it names for it, is told. Never shown, never written down. */
export type RegistryCredentials =
  | { readonly username: string; readonly password: string }
  | { readonly identityToken: string };

export type OciOrigin =
  | {
      readonly kind: 'registry';
      /** Whole, as docker.io/library/debian:12. */
      readonly reference: string;
      readonly credentials?: RegistryCredentials | undefined;
      /** Absolute path of a file in Docker's form that has them; read when they are needed. */
      readonly authFile?: string | undefined;
      /** Certificate authorities in PEM, instead of the host's. */
      readonly authorities?: string | undefined;
      /** Whether the registry is spoken to without TLS; unless said, only on the loopback interface. */
      readonly plainHttp?: boolean | undefined;
    }
  | {
      readonly kind: 'oci-layout' | 'docker-archive';
      /** Absolute path of a directory, or of an archive of one. */
      readonly path: string;
      /** Which image, where there are several: a name that the layout has for it. */
      readonly reference?: string | undefined;
    };

export interface OciRequest {
  readonly from: OciOrigin;
  /** As linux/amd64. */
  readonly platform: string;
  /** Private to this image; what earlier calls left in it is used. */
  readonly directory: string;
}

/**
 * Brings OCI images here and makes a disk of each: a squashfs of the tree that its layers make. Everything is distrusted,
 * and held against the digest by which it was named. Each method may be done again after a crash, and goes on where it
 * was; nothing is left but in the directory.
 */
export interface OciImages {
  /** Errors: Unsupported with what is missing, before anything is made. */
  refuseUnmergeable(): Promise<void>;
  /**
   * Finds what the reference means and fetches its manifest and config; once that is done, it means the same for ever.
   * Errors: NotFound, InvalidArgument, Unsupported for what is no image, Unavailable, ResourceExhausted.
   */
  resolve(request: OciRequest, work: Work): Promise<OciFacts>;
  /** Fetches the layers, but for those that another image has. Errors: as `resolve`. */
  fetch(request: OciRequest, work: Work): Promise<void>;
  /** Errors: InvalidArgument for layers that are not what they claim, ResourceExhausted, Unsupported. */
  merge(request: OciRequest, work: Work): Promise<BuiltFile & { readonly layout: string }>;
}

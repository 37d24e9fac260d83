/**
 * Which template a new guest is forked from, and what it takes from it. A guest may be forked where a boot would make the
 * same of it: the same image and machine, devices at the same places and of the same sizes. Pure but for the look-ups.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Driver, PinnedMachine } from '../../drivers/driver.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import { guestSpec } from '../../protocol/guest.ts';
import type { GuestId, NetworkId } from '../../protocol/types.ts';
import type { GuestRecord, StoredCloudInit, StoredDisk, StoredSpec } from '../inventory/guest-table.ts';
import { copiesIn } from './filesystems.ts';
import type { Guest } from './guest.ts';
import { randomMac } from './resolve-spec.ts';
import { runsProgram } from './runs-program.ts';

const isGoing = (guest: Guest): boolean =>
  guest.removed || guest.unfinished.some(({ kind }) => kind === 'guest-delete');

export const isTemplate = (guest: Guest): boolean =>
  guest.record.spec.template !== undefined && !isGoing(guest);

/** In a transaction: its deletion may have been accepted in the same commit. */
export const isBeingDeleted = ({ house, id }: Guest): boolean =>
  house.operations
    .query({ subject: id, limit: 8 })
    .some(({ kind, endedAt }) => kind === 'guest-delete' && endedAt === undefined);

/** Errors: FailedPrecondition for a guest that is no template, or will be none for long. */
export const requireTemplate = (guest: Guest, goes = isGoing(guest)): Guest => {
  if (guest.record.spec.template !== undefined && !goes) return guest;
  throw new RoostError(
    'FailedPrecondition',
    `Guest ${guest.name} is ${goes ? 'being deleted' : 'no template'}`,
    {
      data: { guest: guest.name },
      hint: goes ? 'Take another.' : 'Make one of it while it is stopped: template-create.',
    },
  );
};

/** In the transaction that accepts its deletion. Errors: FailedPrecondition naming those whose disks lie on it. */
export const refuseWhileForked = (guest: Guest): void => {
  const forks = guest.house.inventory.guests.forksOf(guest.id);
  if (forks.length === 0) return;
  const named = forks.slice(0, 3).join(', ');
  throw new RoostError(
    'FailedPrecondition',
    `The disks of ${forks.length} ${forks.length === 1 ? 'guest' : 'guests'} lie on those of template ${guest.name}: ${named}${forks.length > 3 ? ', …' : ''}`,
    {
      data: { guest: guest.name, forks: forks.slice(0, 100) },
      hint: 'Delete them first. To free its memory alone, stop it.',
    },
  );
};

const shapeOf = ({ memoryBytes, cpu, qemu, boot, firmware, program, disks }: StoredSpec): object => ({
  memoryBytes,
  cpu,
  qemu,
  boot,
  firmware,
  image: program?.image,
  disks: disks.map(({ name, image, sizeBytes, readOnly, copyOf }) => ({
    name,
    image,
    sizeBytes,
    readOnly,
    copyOf,
  })),
});

/** Whether it was kept already, by an earlier daemon that has not come to write it down. */
export const isKept = async ({ driver, place }: Guest): Promise<boolean> =>
  (await driver.forks?.canFork(place)) ?? false;

/** Whether memory that was made with one record goes with another. */
export const isAlike = ({ record, driver }: Guest, spec: StoredSpec, machine: PinnedMachine): boolean =>
  runsProgram(spec) &&
  spec.cloudInit === undefined &&
  spec.cdroms.length === 0 &&
  spec.filesystems.length === 0 &&
  record.spec.filesystems.length === 0 &&
  driver.forks?.fitsMemoryOf(record.machine, machine) === true &&
  isDeepStrictEqual(shapeOf(record.spec), shapeOf(spec));

/** The newest of the candidates that the guest can be forked from. */
export const templateFor = (
  spec: StoredSpec,
  machine: PinnedMachine,
  candidates: readonly Guest[],
): Guest | undefined => {
  if (!runsProgram(spec) || spec.filesystems.length > 0) return undefined;
  return candidates
    .filter((guest) => isTemplate(guest) && isAlike(guest, spec, machine))
    .toSorted((one, other) => madeAt(other) - madeAt(one))[0];
};

const madeAt = ({ record }: Guest): number => record.spec.template?.madeAt ?? 0;

/** Whether what the disk holds is in a file of its guest's own, and not in an image that all guests share. */
export const hasOwnFile = ({ readOnly, copyOf }: Pick<StoredDisk, 'readOnly' | 'copyOf'>): boolean =>
  !readOnly || copyOf !== undefined;

/** What is written goes over what the template has written in that round; what is a copy there is the same copy here. */
export const asForkOf = (spec: StoredSpec, template: GuestId, round = 0): StoredSpec => ({
  ...spec,
  forkOf: template,
  disks: spec.disks.map((disk) => {
    if (!hasOwnFile(disk)) return disk;
    const { round: _templates, templateRound: _former, ...own } = disk;
    return { ...own, template, ...(round === 0 || disk.readOnly ? {} : { templateRound: round }) };
  }),
});

export const roundOf = ({ record }: Pick<Guest, 'record'>): number => record.spec.template?.round ?? 0;

/**
 * In the transaction that records a fork: on the round that the template is in now. It may have been made anew since the fork
 * was thought of, and a round that nobody is recorded on goes.
 */
export const onRoundOf = (spec: StoredSpec, template: Guest): StoredSpec =>
  asForkOf(spec, template.id, roundOf({ record: template.recorded() }));

/** Whether a guest's memory may begin as the template's: what that knows of disks is of the round that they lie on. */
export const goesWithMemoryOf = (
  { disks }: Pick<StoredSpec, 'disks'>,
  { template }: Pick<StoredSpec, 'template'>,
): boolean =>
  template !== undefined &&
  template.remadeBy === undefined &&
  disks.every((disk) => disk.readOnly || (disk.templateRound ?? 0) === (template.round ?? 0));

/** Whether it is a template whose memory is gone that nobody wanted gone, and could be had again by another boot. */
export const isToBeRemade = (guest: Guest): boolean =>
  isTemplate(guest) &&
  !isWarm(guest) &&
  guest.record.spec.template?.released === undefined &&
  !guest.isLive() &&
  guest.unfinished.length === 0;

/** Undefined of one that is no template. Pure. */
export const asReleased = ({ spec, ...record }: GuestRecord): GuestRecord | undefined =>
  spec.template && { ...record, spec: { ...spec, template: { ...spec.template, released: true } } };

/** Whether it was made of a guest that ran: nobody gets what runs in that memory who has not asked for it. */
export const isWarm = ({ record }: Guest): boolean => record.spec.template?.madeOf !== undefined;

/** The same guest once more, with NICs of its own at the same places. */
const another = ({
  spec,
  machine,
}: Pick<GuestRecord, 'spec' | 'machine'>): { readonly spec: StoredSpec; readonly machine: PinnedMachine } => {
  const nics = spec.nics.map(({ name, network }) => ({ name, network, mac: randomMac() }));
  const { deleteAfterEndMs: _kept, ...kept } = spec;
  return {
    spec: { ...kept, deleteProtection: false, keptDisks: [], nics },
    machine: {
      ...machine,
      nics: machine.nics.map((pinned, index) => ({ ...pinned, mac: nics[index]?.mac ?? pinned.mac })),
    },
  };
};

/** What a template is that is made of a running guest. */
export const templateOfRunning = (record: GuestRecord): ReturnType<typeof another> => {
  const { spec, machine } = another(record);
  return {
    spec: {
      ...spec,
      autostart: { ...spec.autostart, enabled: false },
      restartPolicy: { ...spec.restartPolicy, when: 'never' },
      disks: spec.disks.map(({ layer: _own, ...disk }) => disk),
    },
    machine,
  };
};

/** A name that its settings give is the template's. */
const nameless = ({ hostname: _hostname, ...told }: StoredCloudInit): StoredCloudInit => told;

/** What a fork is of a template with a system of its own: all that its memory knows of, down to the disks' serial numbers. */
export const forkOfSystem = (
  { record, driver }: Guest,
  { labels }: Pick<CommandArguments<'guest-fork'>, 'labels'>,
): { readonly like: StoredSpec; readonly machine: PinnedMachine; readonly driver: Driver } => {
  const { spec, machine } = another(record);
  const { template: _template, forkOf: _forkOf, cloudInit, ...own } = spec;
  return {
    like: {
      ...own,
      ...(cloudInit === undefined ? {} : { cloudInit: nameless(cloudInit) }),
      labels: labels ?? spec.labels,
    },
    machine,
    driver,
  };
};

/** The spec of a fork as a user would have written it. */
export const forkSpec = (
  { spec, machine, name: templateName }: GuestRecord,
  { name, program, labels }: CommandArguments<'guest-fork'>,
  networkName: (id: NetworkId) => string,
): ReturnType<typeof guestSpec.parse> => {
  const { template: _template, forkOf: _forkOf, program: own, ...rest } = spec;
  const asked = program ?? {};
  if (program !== undefined && own === undefined)
    throw new RoostError('InvalidArgument', `Template ${templateName} runs no program of a container image`, {
      data: { template: templateName },
      hint: 'Fork it as it is; run programs in its forks by roost exec or by SSH.',
    });
  if (program !== undefined && spec.template?.madeOf !== undefined)
    throw new RoostError('InvalidArgument', `In forks of template ${templateName} its program runs already`, {
      data: { template: templateName },
      hint: 'Fork it as it is, or make a template of the image for other programs.',
    });
  return guestSpec.parse({
    name,
    driver: spec.driver,
    machine: machine.type,
    memoryBytes: spec.memoryBytes,
    cpu: spec.cpu,
    qemu: spec.qemu,
    stopTimeoutMs: rest.stopTimeoutMs,
    labels: labels ?? spec.labels,
    nics: spec.nics.map((nic) => ({ network: networkName(nic.network) })),
    filesystems: copiesIn(spec).map(({ copyOf }) => ({ ...copyOf, mode: 'copy' })),
    ...(own === undefined
      ? {}
      : {
          program: {
            image: own.image,
            ...(program === undefined
              ? { entrypoint: own.argv.slice(0, 1), command: own.argv.slice(1) }
              : {}),
            ...asked,
            environment: [...own.environment, ...(program?.environment ?? [])],
          },
        }),
  });
};

export const unlikeTemplate = (template: Guest): RoostError =>
  new RoostError(
    'FailedPrecondition',
    `A guest like template ${template.name} is made in another way by now`,
    {
      data: { guest: template.name },
      hint: 'What it boots by, or its QEMU, is another today. Make a new template.',
    },
  );

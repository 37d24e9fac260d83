/**
 * Every changing command of the contract, each with a host on which it can be asked for. The tests that let an operation
 * fail, crash and run twice at each of its steps go through this table, on fakes (`test/fault/every-step.test.ts`) and
 * on real parts (`test/torture/every-step.test.ts`). The steps themselves are not listed: they are seen in an undisturbed
 * run, and so is how everything has to look afterwards.
 *
 * **To add a row** for a new command: name it, say in `prepare` what has to be there, and in `ask` the arguments. Nothing
 * else; a command without a row fails `test/fault/every-step.test.ts`. Where an operation takes different ways, give it
 * a row for each. A row that only real parts can do says so by `only`; the other members of a row are explained at
 * `OperationRow`.
 */
import type { CommandInput, CommandName } from '../../protocol/commands.ts';
import { commandNames, findCommand } from '../../protocol/commands.ts';
import type { GuestSpecInput } from '../../protocol/guest.ts';
import { MEBIBYTE } from '../../protocol/types.ts';

/** The daemon under test, and what its kind of host calls things. */
export interface TableHost {
  /** `fake`: everything pretended; `real`: QEMU, disks, bridges. */
  readonly kind: 'fake' | 'real';
  /** Calls a changing command and waits until its operation has succeeded. */
  done<N extends CommandName>(name: N, args: CommandInput<N>): Promise<void>;
  /** A spec that this host can start; it powers off when the button is pressed. */
  guest(name: string, more?: Partial<GuestSpecInput>): GuestSpecInput;
  /** A spec of a container of the image `system`; the same. */
  container(name: string, more?: Partial<GuestSpecInput>): GuestSpecInput;
  /** The image under the guests' disks, there from the beginning. */
  readonly image: string;
  /** Path of a raw disk on the host that can be imported. */
  readonly file: string;
  /** Path of an OCI layout on the host that can be imported. */
  readonly layout: string;
  /** Path of the archive of a root file system on the host. */
  readonly root: string;
  /** An agent in a running guest opens its channel; fakes only. */
  readonly openAgent?: (guest: string) => Promise<void>;
}

export interface OperationRow<N extends CommandName = CommandName> {
  readonly command: N;
  /** It is about containers. */
  readonly ofContainer?: boolean;
  /** What tells it from other rows of its command. */
  readonly when?: string;
  readonly only?: TableHost['kind'];
  prepare?(host: TableHost): Promise<void>;
  ask(host: TableHost): CommandInput<N>;
  /** Its second run after a crash could surprise a guest, so it is left failed; see `settle`. */
  readonly onceOnly?: boolean;
  /** It takes something away: a failure after that is none, because there is nothing to ask for again. */
  readonly endsInNoReturn?: boolean;
  /** It is two operations, the second of which may fail and leave what the first one made. */
  readonly twofold?: boolean;
  /** What it gives a guest only the guest can give back: a failure after that leaves it there where no system runs. */
  readonly givesToGuest?: boolean;
  /** It asks for operations of this kind and ends well, with a word about it, where one of them fails. */
  readonly bears?: CommandName;
}

const row = <const N extends CommandName>(declared: OperationRow<N>): OperationRow =>
  declared as unknown as OperationRow;

/** A guest with two disks and a NIC. */
const one = (host: TableHost, more: Partial<GuestSpecInput> = {}): GuestSpecInput =>
  host.guest('one', {
    nics: [{ network: 'lan' }],
    disks: [{ image: host.image }, { sizeBytes: MEBIBYTE }],
    ...more,
  });

const network = (host: TableHost): Promise<void> => host.done('network-create', { name: 'lan' });
const stopped = async (host: TableHost): Promise<void> => {
  await network(host);
  await host.done('guest-create', one(host));
};
const running = async (host: TableHost): Promise<void> => {
  await network(host);
  await host.done('guest-create', { ...one(host), start: true });
};
const paused = async (host: TableHost): Promise<void> => {
  await running(host);
  await host.done('guest-pause', { guest: 'one' });
};

/** A running guest with an agent. */
const withAgent = async (host: TableHost): Promise<void> => {
  await running(host);
  await host.openAgent?.('one');
};

/** A running guest with an empty CD-ROM drive, and something to put into it. */
const withDrive = async (host: TableHost): Promise<void> => {
  await network(host);
  await host.done('image-import', { name: 'disc', kind: 'iso', path: host.file });
  await host.done('guest-create', { ...one(host, { cdroms: [{}] }), start: true });
};

/** A container with a NIC. */
const contained = (host: TableHost): GuestSpecInput => host.container('one', { nics: [{ network: 'lan' }] });

const system = async (host: TableHost): Promise<void> => {
  await network(host);
  await host.done('image-import', { name: 'system', kind: 'root', path: host.root });
};
const stoppedContainer = async (host: TableHost): Promise<void> => {
  await system(host);
  await host.done('guest-create', contained(host));
};
const runningContainer = async (host: TableHost): Promise<void> => {
  await system(host);
  await host.done('guest-create', { ...contained(host), start: true });
};
const pausedContainer = async (host: TableHost): Promise<void> => {
  await runningContainer(host);
  await host.done('guest-pause', { guest: 'one' });
};

type Asked = Pick<OperationRow, 'command' | 'when' | 'prepare' | 'ask' | 'onceOnly' | 'twofold'>;

/** What is asked of containers, each with the word that it is of one. */
const ofContainers: readonly Asked[] = [
  { command: 'guest-create', prepare: system, ask: contained },
  {
    command: 'guest-create',
    when: 'and start',
    prepare: system,
    ask: (host) => ({ ...contained(host), start: true }),
    twofold: true,
  },
  {
    command: 'guest-update',
    prepare: runningContainer,
    ask: () => ({ guest: 'one', memoryBytes: 48 * MEBIBYTE, limits: { processes: 64 } }),
  },
  { command: 'guest-start', prepare: stoppedContainer, ask: () => ({ guest: 'one' }) },
  {
    command: 'guest-start',
    when: 'paused',
    prepare: stoppedContainer,
    ask: () => ({ guest: 'one', paused: true }),
  },
  { command: 'guest-stop', prepare: runningContainer, ask: () => ({ guest: 'one' }) },
  {
    command: 'guest-stop',
    when: 'by force, paused,',
    prepare: pausedContainer,
    ask: () => ({ guest: 'one', force: true }),
  },
  { command: 'guest-pause', prepare: runningContainer, ask: () => ({ guest: 'one' }) },
  { command: 'guest-resume', prepare: pausedContainer, ask: () => ({ guest: 'one' }) },
  { command: 'guest-reset', prepare: runningContainer, ask: () => ({ guest: 'one' }), onceOnly: true },
  { command: 'guest-delete', prepare: stoppedContainer, ask: () => ({ guest: 'one' }) },
  {
    command: 'guest-delete',
    when: 'by force, running,',
    prepare: runningContainer,
    ask: () => ({ guest: 'one', force: true }),
  },
  { command: 'guest-reset-state', prepare: runningContainer, ask: () => ({ guest: 'one', force: true }) },
  { command: 'fsck-repair', prepare: runningContainer, ask: () => ({}) },
];

export const operationTable: readonly OperationRow[] = [
  row({ command: 'guest-create', prepare: network, ask: (host) => one(host) }),
  row({
    command: 'guest-create',
    when: 'and start',
    prepare: network,
    ask: (host) => ({ ...one(host), start: true }),
    twofold: true,
  }),
  row({
    command: 'guest-update',
    prepare: stopped,
    ask: () => ({ guest: 'one', description: 'changed', memoryBytes: 32 * MEBIBYTE }),
  }),
  row({ command: 'guest-rename', prepare: stopped, ask: () => ({ guest: 'one', newName: 'two' }) }),
  row({ command: 'guest-start', prepare: stopped, ask: () => ({ guest: 'one' }) }),
  row({
    command: 'guest-start',
    when: 'paused',
    prepare: stopped,
    ask: () => ({ guest: 'one', paused: true }),
  }),
  row({ command: 'guest-stop', prepare: running, ask: () => ({ guest: 'one' }) }),
  row({
    command: 'guest-stop',
    when: 'by force',
    prepare: running,
    ask: () => ({ guest: 'one', force: true }),
  }),
  row({ command: 'guest-pause', prepare: running, ask: () => ({ guest: 'one' }) }),
  row({ command: 'guest-resume', prepare: paused, ask: () => ({ guest: 'one' }) }),
  row({ command: 'guest-reset', prepare: running, ask: () => ({ guest: 'one' }), onceOnly: true }),
  row({ command: 'guest-delete', prepare: stopped, ask: () => ({ guest: 'one' }) }),
  row({
    command: 'guest-delete',
    when: 'of a running guest',
    prepare: running,
    ask: () => ({ guest: 'one', force: true }),
  }),
  row({ command: 'guest-reset-state', prepare: running, ask: () => ({ guest: 'one', force: true }) }),
  row({
    command: 'guest-disk-attach',
    prepare: stopped,
    ask: () => ({ guest: 'one', name: 'data', sizeBytes: MEBIBYTE }),
  }),
  row({
    command: 'guest-disk-attach',
    when: 'to a running guest',
    givesToGuest: true,
    prepare: running,
    ask: () => ({ guest: 'one', name: 'data', sizeBytes: MEBIBYTE }),
  }),
  row({
    command: 'guest-disk-detach',
    prepare: stopped,
    endsInNoReturn: true,
    ask: () => ({ guest: 'one', disk: 'disk1' }),
  }),
  row({
    command: 'guest-disk-detach',
    when: 'from a running guest',
    // A boot sector does not let go of a device.
    only: 'fake',
    endsInNoReturn: true,
    prepare: running,
    ask: () => ({ guest: 'one', disk: 'disk1' }),
  }),
  row({
    command: 'guest-disk-resize',
    prepare: running,
    ask: () => ({ guest: 'one', disk: 'disk1', sizeBytes: 2 * MEBIBYTE }),
  }),
  row({
    command: 'guest-disk-delete',
    endsInNoReturn: true,
    prepare: async (host) => {
      await stopped(host);
      await host.done('guest-disk-detach', { guest: 'one', disk: 'disk1' });
    },
    ask: () => ({ guest: 'one', disk: 'disk1' }),
  }),
  row({ command: 'guest-nic-attach', prepare: stopped, ask: () => ({ guest: 'one', network: 'lan' }) }),
  row({
    command: 'guest-nic-attach',
    when: 'to a running guest',
    givesToGuest: true,
    prepare: running,
    ask: () => ({ guest: 'one', network: 'lan' }),
  }),
  row({
    command: 'guest-nic-detach',
    prepare: stopped,
    endsInNoReturn: true,
    ask: () => ({ guest: 'one', nic: 'nic0' }),
  }),
  row({
    command: 'guest-cdrom-insert',
    prepare: withDrive,
    ask: () => ({ guest: 'one', image: 'disc' }),
  }),
  row({
    command: 'guest-cdrom-eject',
    prepare: async (host) => {
      await withDrive(host);
      await host.done('guest-cdrom-insert', { guest: 'one', image: 'disc' });
    },
    ask: () => ({ guest: 'one' }),
  }),
  row({
    command: 'guest-fsfreeze-freeze',
    // A boot sector has no agent.
    only: 'fake',
    prepare: withAgent,
    ask: () => ({ guest: 'one' }),
  }),
  row({
    command: 'guest-fsfreeze-thaw',
    only: 'fake',
    prepare: async (host) => {
      await withAgent(host);
      await host.done('guest-fsfreeze-freeze', { guest: 'one' });
    },
    ask: () => ({ guest: 'one' }),
  }),
  row({
    command: 'guest-stop',
    when: 'of a frozen guest',
    only: 'fake',
    prepare: async (host) => {
      await withAgent(host);
      await host.done('guest-fsfreeze-freeze', { guest: 'one' });
    },
    ask: () => ({ guest: 'one' }),
  }),
  row({
    command: 'guest-clone',
    // A real one needs liblxc; see test/integration/container-copies.test.ts. So of those below.
    only: 'fake',
    prepare: stoppedContainer,
    ask: () => ({ guest: 'one', name: 'two' }),
  }),
  row({
    command: 'guest-clone',
    when: 'and start',
    only: 'fake',
    prepare: stoppedContainer,
    ask: () => ({ guest: 'one', name: 'two', start: true }),
    twofold: true,
  }),
  row({ command: 'guest-save', only: 'fake', prepare: stoppedContainer, ask: () => ({ guest: 'one' }) }),
  row({ command: 'host-shutdown-guests', prepare: running, bears: 'guest-stop', ask: () => ({}) }),
  row({ command: 'fsck-repair', prepare: running, ask: () => ({}) }),
  row({
    command: 'image-build',
    // A real one takes a minute; see test/storage/build.
    only: 'fake',
    ask: () => ({ recipe: 'debian', version: '1' }),
  }),
  row({
    command: 'image-prune',
    prepare: async (host) => {
      for (const version of ['1', '2'])
        await host.done('image-import', { name: 'further', version, path: host.file, format: 'raw' });
    },
    ask: () => ({ image: 'further' }),
    endsInNoReturn: true,
  }),
  row({ command: 'image-alias-set', ask: (host) => ({ alias: 'other', image: host.image }) }),
  row({
    command: 'image-alias-delete',
    prepare: (host) => host.done('image-alias-set', { alias: 'other', image: host.image }),
    ask: () => ({ alias: 'other' }),
  }),
  row({ command: 'image-import', ask: (host) => ({ name: 'further', path: host.file, format: 'raw' }) }),
  row({
    command: 'image-import',
    when: 'of a layout',
    ask: (host) => ({ name: 'container', kind: 'oci', path: host.layout }),
  }),
  row({
    command: 'image-import',
    when: 'of a root',
    ask: (host) => ({ name: 'system', kind: 'root', path: host.root }),
  }),
  row({
    command: 'image-pull',
    // A real one needs a registry; see test/integration/registry.test.ts.
    only: 'fake',
    ask: () => ({ reference: 'registry.example/container:1' }),
  }),
  row({
    command: 'image-delete',
    prepare: (host) => host.done('image-import', { name: 'further', path: host.file, format: 'raw' }),
    ask: () => ({ image: 'further' }),
    endsInNoReturn: true,
  }),
  row({ command: 'network-create', ask: () => ({ name: 'lan' }) }),
  row({
    command: 'network-create',
    when: 'without a way out',
    ask: () => ({ name: 'lan', kind: 'isolated' }),
  }),
  row({ command: 'network-delete', prepare: network, ask: () => ({ network: 'lan' }) }),
  ...ofContainers.map(
    (asked): OperationRow => ({
      ...asked,
      when: `${asked.when ?? ''} of a container`.trim(),
      ofContainer: true,
    }),
  ),
];

export const titleOf = ({ command, when }: OperationRow): string =>
  when === undefined ? command : `${command} ${when}`;

export const rowsFor = (kind: TableHost['kind']): readonly OperationRow[] =>
  operationTable.filter(({ only }) => only === undefined || only === kind);

/** Commands whose host no row can prepare by asking the daemon, and where they are tried instead. */
const elsewhere: Readonly<Partial<Record<CommandName, string>>> = {
  'guest-adopt': 'needs a process whose record is lost: test/daemon/adopt.test.ts',
  'template-create': 'needs a kernel and our init: test/integration/fork.test.ts',
  'guest-fork': 'needs a template: test/integration/fork.test.ts',
};

/** Changing commands of the contract that no row asks for. */
export const commandsWithoutRow = (): readonly CommandName[] => {
  const there = new Set(operationTable.map(({ command }) => command));
  return commandNames.filter(
    (name) => findCommand(name)?.nature === 'change' && !there.has(name) && !(name in elsewhere),
  );
};

/** What differs from run to run and from try to try, and means nothing to a user. */
const volatile: ReadonlySet<string> = new Set([
  'id',
  'image',
  'mac',
  'ipv4',
  'serial',
  // By the instance.
  'idRange',
  'bridge',
  'sha256',
  // Of a layout that is made anew for each try.
  'digest',
  // Where an image's file lay.
  'path',
  'subnet',
  'gateway',
  'observedAt',
  'createdAt',
  'importedAt',
  'generation',
  'process',
  'lastExit',
  'restarts',
  'operation',
  'targetActor',
  // Since when an agent is there is as this daemon has seen it.
  'since',
]);

const lasting = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(lasting);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([member, inner]) =>
      volatile.has(member) ? [] : [[member, lasting(inner)]],
    ),
  );
};

/** All that a user can see of guests, images and networks, without what differs from run to run. */
export const viewOf = async (client: {
  call(name: 'query-guests' | 'query-images' | 'query-networks', args: { limit: number }): Promise<unknown>;
}): Promise<unknown> =>
  lasting({
    guests: await client.call('query-guests', { limit: 1000 }),
    images: await client.call('query-images', { limit: 1000 }),
    networks: await client.call('query-networks', { limit: 1000 }),
  });

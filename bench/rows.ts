/** Every row that can be measured, and what is said of it in docs/SPECIFICATION.md. */

import { guestImages } from '../test/guests/guest-images.ts';
import { bootToSsh, prepareDebian } from './boot-rows.ts';
import { churnRows } from './churn-rows.ts';
import { containerRows } from './container-rows.ts';
import { prepareContainers } from './containers.ts';
import { createRows } from './create-rows.ts';
import { eventRows } from './event-rows.ts';
import { forkRows } from './fork-rows.ts';
import type { InstanceOptions } from './instance.ts';
import { inventoryRows } from './inventory-rows.ts';
import { prepareLibvirt } from './libvirt/daemon.ts';
import { libvirtStartRow } from './libvirt-rows.ts';
import { listRows } from './list-rows.ts';
import { lxcRows } from './lxc-rows.ts';
import type { Figure } from './measure.ts';
import { requestRows } from './request-rows.ts';
import { restartRows } from './restart-rows.ts';
import { startBare, startDiskNic } from './start-rows.ts';
import { stoppedRows } from './stopped-rows.ts';

export interface RowText {
  readonly name: string;
  /** What is measured, for the reader of the specification. */
  readonly what: string;
  /** The highest ratio that is promised. A figure without a peer is information only. */
  readonly promise?: number;
}

/** Rows that are measured together. */
export interface RowGroup {
  readonly rows: readonly RowText[];
  /** Bridges, taps and users of their own are for root alone. */
  readonly needsRoot: boolean;
  /** Makes what needs the host's network, before the bench leaves it. */
  prepare?(signal: AbortSignal): Promise<void>;
  measure(options: InstanceOptions): Promise<readonly Figure[]>;
}

const numeral = (count: number): string => count.toLocaleString('en');

/** Rows that are measured at each size of the inventory. */
const inventoryTexts = (size: number): readonly RowText[] => {
  const guests = `with ${numeral(size)} guests in the inventory`;
  const isLarge = size === 1_000;
  return [
    { name: `daemon-memory-${size}`, what: `Resident memory of the daemon ${guests}` },
    { name: `define-${size}`, what: `Like define-libvirt, ${guests}` },
    {
      name: `list-${size}-bulk`,
      what: `\`query-guests\` of all names and states ${guests}, until its last byte`,
    },
    ...(size > 1_000
      ? []
      : [
          {
            name: `list-${size}-states`,
            what: 'The same, where libvirt is asked for each state',
            ...(isLarge ? { promise: 0.5 } : {}),
          },
        ]),
    { name: `record-${size}`, what: `\`query-guest\` of one, every member, ${guests}` },
    {
      name: `cli-ls-${size}-virsh`,
      what: `\`roost ls\` ${guests}, from the spawn to its end`,
      ...(isLarge ? { promise: 1 } : {}),
    },
    { name: `cli-show-${size}`, what: `\`roost show\` of one ${guests}, from the spawn to its end` },
    { name: `start-among-${size}`, what: `Like start-libvirt, ${guests}` },
  ];
};

const growthTexts = (byRow: Readonly<Record<string, string>>): readonly RowText[] =>
  Object.entries(byRow).map(([name, what]) => ({
    name,
    what: `Exponent of the growth of these with the number of ${what}; 1 is in proportion`,
  }));

export const rowGroups: readonly RowGroup[] = [
  {
    rows: [
      {
        name: 'start-bare',
        what: '`guest-start` written to the socket until `GUEST_STATE_CHANGED` to running has come; a guest without disk and NIC',
        // The aim is 1.15: about a millisecond is still to be found.
        promise: 1.25,
      },
    ],
    needsRoot: false,
    measure: startBare,
  },
  {
    rows: [
      {
        name: 'start-disk-nic',
        what: 'The same for a guest with one qcow2 overlay on a base and one NIC on a nat bridge',
        promise: 1.5,
      },
    ],
    needsRoot: true,
    measure: startDiskNic,
  },
  {
    rows: [
      {
        name: 'create-blank',
        what: '`guest-create` of a guest with an empty disk, until the operation has succeeded',
      },
      {
        name: 'create-from-image',
        what: '`guest-create` of a guest with a disk on an image, a linked clone, until the operation has succeeded',
      },
    ],
    needsRoot: false,
    measure: createRows,
  },
  {
    rows: [
      {
        name: 'fork-running',
        what: '`guest-fork` written to the socket until `GUEST_STATE_CHANGED` to running has come; a microVM of 256 MiB, its peer a guest without disk and NIC',
      },
      {
        name: 'fork-ready',
        what: 'The same until `GUEST_READY` has come: it has random bytes, clock, name and disk of its own',
      },
      {
        name: 'fork-program',
        what: 'The same until the operation has succeeded: its program, which the template had not begun, runs',
      },
      {
        name: 'waiting-running',
        what: 'Like `fork-running`, where a fork waits for whoever asks',
      },
      {
        name: 'waiting-ready',
        what: 'Like `fork-ready`, where a fork waits for whoever asks',
        promise: 2,
      },
      {
        name: 'waiting-program',
        what: 'Like `fork-program`, where a fork waits for whoever asks',
      },
      {
        name: 'fork-boot',
        what: 'The same against a boot of the same image',
        promise: 0.3,
      },
      {
        name: 'fork-memory',
        what: 'Proportional set size of each of 50 forks that are there at once, against 50 boots of the same image',
        promise: 0.3,
      },
    ],
    needsRoot: true,
    prepare: async (signal) => void (await guestImages(signal)),
    measure: forkRows,
  },
  {
    rows: [
      {
        name: 'run-cold',
        what: '`roost run --rm IMAGE true` where there is no template, from the spawn to its end; its peer without network as well',
      },
      { name: 'run-warm', what: 'The same where there is a template', promise: 1 },
      { name: 'run-warm-podman', what: 'The same against podman with runc', promise: 1 },
      {
        name: 'run-warm-network',
        what: 'Like run-warm, on a network of kind nat, its peer on its bridge',
        promise: 1,
      },
    ],
    needsRoot: true,
    prepare: async (signal) => {
      await guestImages(signal);
      await prepareContainers(signal);
    },
    measure: containerRows,
  },
  {
    rows: [
      {
        name: 'container-create',
        what: '`guest-create` of a container on an image, until the operation has succeeded; dockerd is asked on its socket',
      },
      {
        name: 'container-start',
        what: '`guest-start` of it written to the socket until `GUEST_STATE_CHANGED` to running has come',
      },
      { name: 'container-stop', what: '`guest-stop` by force, until the operation has succeeded' },
      {
        name: 'container-delete',
        what: '`guest-delete` of a stopped one, until the operation has succeeded',
      },
      {
        name: 'container-exec',
        what: '`true` in a running one by `guest-exec` on an open connection, until its exit status is known',
      },
      {
        name: 'container-first-exec',
        what: 'From `guest-start` written to the socket until the same has been answered',
      },
      { name: 'container-exec-cli', what: '`roost exec NAME true`, from the spawn to its end' },
      { name: 'container-create-cli', what: 'The same for `roost create NAME --root IMAGE`' },
      { name: 'container-start-cli', what: 'The same for `roost start NAME`' },
      {
        name: 'container-stop-cli',
        what: 'The same for `roost stop --force NAME`; its peer does not wait for the end',
      },
      {
        name: 'container-start-lxc',
        what: 'Like container-start, against `lxc-start` with the same configuration until it ends: the container runs then',
      },
      { name: 'container-first-exec-lxc', what: 'Like container-first-exec, against it and `lxc-attach`' },
      { name: 'container-stop-lxc', what: 'Like container-stop, against `lxc-stop -k`' },
      { name: 'container-exec-lxc', what: 'Like container-exec, against `lxc-attach`' },
    ],
    needsRoot: true,
    prepare: prepareContainers,
    measure: lxcRows,
  },
  {
    rows: [
      {
        name: 'boot-to-ssh',
        what: 'First boot of a Debian from the image, from `guest-start` written to the socket until `true` has run in it by ssh',
        promise: 1.1,
      },
    ],
    needsRoot: true,
    prepare: prepareDebian,
    measure: bootToSsh,
  },
  {
    rows: [
      {
        name: 'create-1000',
        what: 'Guests made in a second, none of them with a disk, 16 requests on their way',
      },
      {
        name: 'list-1020',
        what: '`query-guests` of all 1,000 stopped and 20 running guests, every member, in one page: until its last byte',
      },
      { name: 'cli-ls-1020', what: '`roost ls` of them, from the spawn to its end' },
      { name: 'daemon-memory-1020', what: 'Resident memory of the daemon that keeps them' },
    ],
    needsRoot: false,
    measure: listRows,
  },
  {
    rows: [
      {
        name: 'start-libvirt',
        what: 'Like start-bare, against libvirtd with an equal domain',
        promise: 0.5,
      },
    ],
    needsRoot: true,
    prepare: prepareLibvirt,
    measure: libvirtStartRow,
  },
  {
    rows: [
      { name: 'daemon-memory-0', what: 'Resident memory of the daemon without a guest' },
      { name: 'define-libvirt', what: '`guest-create` of a guest without disks, until it has succeeded' },
      ...[10, 1_000, 10_000].flatMap(inventoryTexts),
      ...growthTexts({
        'define-growth': 'guests',
        'list-growth': 'guests',
        'record-growth': 'guests',
        'cli-ls-growth': 'guests',
        'cli-show-growth': 'guests',
        'start-growth': 'guests',
        'daemon-memory-growth': 'guests',
      }),
    ],
    needsRoot: true,
    prepare: prepareLibvirt,
    measure: inventoryRows,
  },
  {
    rows: [
      ...[100, 1_000, 4_000].map((count) => ({
        name: `create-delete-${count}`,
        what: `${numeral(count)} guests made, 16 at a time, and deleted again: time by guest`,
      })),
      ...growthTexts({ 'create-delete-growth': 'guests' }),
    ],
    needsRoot: true,
    prepare: prepareLibvirt,
    measure: churnRows,
  },
  {
    rows: [
      { name: 'request-1-qmp', what: 'The state of one guest, asked again and again on one connection' },
      { name: 'request-1-libvirt', what: 'The same against libvirt' },
      ...[1, 10, 50].flatMap((count) => [
        {
          name: `request-${count}`,
          what: `The same on ${count} connections at a time: time by number of requests`,
        },
        { name: `request-${count}-p99`, what: 'Of these, how long the slowest in a hundred took' },
      ]),
      ...growthTexts({ 'request-growth': 'connections' }),
    ],
    needsRoot: true,
    prepare: prepareLibvirt,
    measure: requestRows,
  },
  {
    rows: [
      {
        name: 'event-delay',
        what: 'From QEMU’s time stamp of a pause until a client has read GUEST_STATE_CHANGED',
      },
      { name: 'event-delay-10', what: 'The same until the last of 10 clients has' },
      { name: 'event-delay-100', what: 'The same until the last of 100 clients has' },
      ...growthTexts({ 'event-delay-growth': 'clients' }),
      { name: 'subscriber-memory', what: 'Resident memory that each of them adds' },
    ],
    needsRoot: false,
    measure: eventRows,
  },
  {
    rows: [
      ...[10, 50, 200].flatMap((count) => [
        {
          name: `running-guest-memory-${count}`,
          what: `Resident memory of the daemon by running guest, of ${count}`,
        },
        {
          name: `restart-${count}`,
          what: `From the signal that ends the daemon until the next one has taken back ${count} running guests`,
        },
        { name: `restart-${count}-answer`, what: 'Of that, until it has answered a first request' },
      ]),
      ...growthTexts({ 'restart-growth': 'guests' }),
    ],
    needsRoot: true,
    prepare: prepareLibvirt,
    measure: restartRows,
  },
  {
    rows: [
      {
        name: 'list-200-stopped',
        what: 'The slowest but one of a hundred `query-guests` of 200 running guests, 40 of them stopped by SIGSTOP',
        promise: 1.5,
      },
    ],
    needsRoot: false,
    measure: stoppedRows,
  },
];

export const rowNames: readonly string[] = rowGroups.flatMap(({ rows }) => rows.map(({ name }) => name));

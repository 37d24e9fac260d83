/** Verbs on guests. */
import { change } from '../change.ts';
import { listFields, printGuests, printPlan, printSeed, wideFields } from '../print/guest.ts';
import { type Flag, type Positional, query, type Verb } from '../verb.ts';
import { afterWithReady, readyFlags } from '../waiting.ts';
import { findingVerbs } from './guest-finding.ts';
import { showVerb } from './guest-show.ts';

const guest: Positional = { name: 'NAME', member: 'guest', complete: 'guest' };
const guests: Positional = { ...guest, variadic: true };

/** Settings that create and update share. */
const settings: readonly Flag[] = [
  { name: 'memory', short: 'm', member: 'memoryBytes', description: 'Memory, whole MiB' },
  { name: 'cpus', short: 'c', member: 'cpu.count' },
  { name: 'cpu-model', member: 'cpu.model', value: 'model' },
  { name: 'cpu-topology', member: 'cpu.topology' },
  {
    name: 'kernel',
    member: 'boot.kernel',
    value: 'image',
    description: 'Boot this kernel image directly',
    complete: 'image',
  },
  {
    name: 'initrd',
    member: 'boot.initrd',
    value: 'image',
    description: 'Initial ramdisk image of that kernel',
    complete: 'image',
  },
  { name: 'append', member: 'boot.commandLine' },
  {
    name: 'accel',
    member: 'qemu.accel',
    description: 'Accelerator; auto takes KVM where it works, else TCG',
  },
  { name: 'qemu', member: 'qemu.binary', value: 'name' },
  { name: 'agent', member: 'agent.enabled', negatable: true },
  { name: 'description', member: 'description', description: 'Free text' },
  { name: 'label', short: 'l', member: 'labels', description: 'Free key-value pair' },
  { name: 'autostart', member: 'autostart.enabled' },
  { name: 'autostart-order', member: 'autostart.order' },
  { name: 'autostart-delay', member: 'autostart.delayMs' },
  { name: 'restart', member: 'restartPolicy.when' },
  { name: 'restart-delay', member: 'restartPolicy.delayMs' },
  { name: 'restart-max-delay', member: 'restartPolicy.maxDelayMs' },
  {
    name: 'stop-timeout',
    member: 'stopTimeoutMs',
    description: 'How long a stop waits before it uses force',
  },
  {
    name: 'delete-protection',
    member: 'deleteProtection',
    description: 'Refuse to delete it until this is off again',
  },
];

/** Settings of containers, of create and update. */
const containerSettings: readonly Flag[] = [
  {
    name: 'init',
    member: 'boot.init',
    value: 'word',
    description: 'Command line of the init of a container, in place of /sbin/init: given once for each word',
  },
  { name: 'nesting', member: 'boot.nesting', description: 'Let a container run containers itself' },
  {
    name: 'cap-add',
    member: 'boot.keepCapabilities',
    value: 'capability',
    description: 'Leave a container a capability that it would not have, as sys_time; may be given again',
  },
  {
    name: 'cap-drop',
    member: 'boot.dropCapabilities',
    value: 'capability',
    description: 'Take a capability from a container; may be given again',
  },
];
const limits: readonly Flag[] = [
  {
    name: 'processes',
    member: 'limits.processes',
    description: 'Processes and threads of a container, at most',
  },
  {
    name: 'read-limit',
    member: 'limits.readBytesPerSecond',
    description: 'What a container may read from its storage in a second',
  },
  {
    name: 'write-limit',
    member: 'limits.writeBytesPerSecond',
    description: 'What a container may write to its storage in a second',
  },
];

/** What cloud-init is told; create and update share it. */
const cloudInit: readonly Flag[] = [
  { name: 'user', member: 'cloudInit.user', value: 'name' },
  { name: 'hostname', member: 'cloudInit.hostname', value: 'name' },
  {
    name: 'ssh-key',
    type: 'strings',
    value: 'file|key',
    description: 'Public key with which the user may log in by SSH; may be given again',
    complete: 'file',
  },
  {
    name: 'password',
    description:
      "The user's password on the console: asked for, or the first line of standard input; only its hash is kept",
  },
  { name: 'password-hash', member: 'cloudInit.passwordHash', value: 'hash' },
  {
    name: 'user-data',
    type: 'string',
    value: 'file',
    description: 'User-data of your own for cloud-init: a cloud-config, a script or another of its formats',
    complete: 'file',
  },
  {
    name: 'meta-data',
    type: 'string',
    value: 'file',
    description: 'Meta-data of your own for cloud-init, YAML',
    complete: 'file',
  },
  {
    name: 'network-config',
    type: 'string',
    value: 'file',
    description: 'Network configuration of your own for cloud-init, version 1 or 2',
    complete: 'file',
  },
];

const fromJson: Flag = {
  name: 'from-json',
  type: 'string',
  value: 'file',
  description: 'Arguments of the command as JSON from a file, - for standard input; other flags go on top',
  complete: 'file',
};

const create = change({
  words: 'create',
  command: 'guest-create',
  uses: ['guest-wait'],
  positionals: [{ name: 'NAME', member: 'name', description: 'Name of the new guest: a DNS label' }],
  flags: [
    {
      name: 'image',
      short: 'i',
      type: 'string',
      value: 'image',
      description: 'First disk on this image, as large as it',
      complete: 'image',
    },
    {
      name: 'disk',
      member: 'disks',
      description: 'A disk: from an image, or empty with a size; may be given again',
    },
    {
      name: 'cdrom',
      member: 'cdroms',
      description: 'A CD-ROM drive, empty without an image; may be given again',
    },
    {
      name: 'network',
      short: 'n',
      type: 'strings',
      value: 'network',
      description: 'A NIC on this network; may be given again',
      complete: 'network',
    },
    { name: 'nic', member: 'nics', description: 'A NIC with its settings; may be given again' },
    { name: 'machine', member: 'machine', value: 'type' },
    { name: 'firmware', member: 'firmware' },
    { name: 'driver', member: 'driver', description: 'Driver that runs it' },
    {
      name: 'root',
      member: 'boot.image',
      value: 'image',
      description: 'Make a container on this image of kind root or oci; implies --driver lxc',
      complete: 'image',
    },
    ...containerSettings,
    ...limits,
    ...settings,
    ...cloudInit,
    {
      name: 'cloud-init',
      description:
        'Tell cloud-init the name and the NICs of the guest, also where there is nothing else to tell',
    },
    {
      name: 'forward',
      short: 'p',
      type: 'strings',
      value: '[port:]guest-port',
      description:
        'A port of the host for one of the guest, on its first NIC, of a network of kind nat or user: 8080:80, 0.0.0.0:8080:80, 5353:53/udp, or 22 for a free port of the host; may be given again',
    },
    fromJson,
    { name: 'start', short: 's', member: 'start' },
    ...readyFlags,
  ],
  prepare: async (...given) => (await import('../guest-input.ts')).prepareCreate(...given),
  after: afterWithReady,
  done: (args) => (args['start'] === true ? 'created and started' : 'created'),
});

const update = change({
  words: 'update',
  command: 'guest-update',
  uses: ['query-guest'],
  details:
    "Flags not given leave their settings as they are; labels are added to those it has. SSH keys are replaced, and a file called '' takes away what cloud-init was told from a file.",
  positionals: [guest],
  flags: [
    ...containerSettings.map((flag) => (flag.name === 'nesting' ? { ...flag, negatable: true } : flag)),
    ...limits.map((flag) => ({
      ...flag,
      removable: true,
      description: `${flag.description}; --no-${flag.name} takes the limit away`,
    })),
    ...settings.map((flag) => ({ ...flag, negatable: true })),
    ...cloudInit.map((flag) => (flag.name === 'password' ? { ...flag, negatable: true } : flag)),
    {
      name: 'cloud-init',
      negatable: true,
      description:
        'Tell cloud-init the name and the NICs of the guest; --no-cloud-init tells it nothing any more',
    },
    { name: 'new-instance-id', member: 'cloudInit.newInstance' },
    {
      name: 'unlabel',
      type: 'strings',
      value: 'key',
      description: 'Take this label away; may be given again',
    },
    fromJson,
  ],
  prepare: async (...given) => (await import('../guest-input.ts')).prepareUpdate(...given),
  done: 'updated',
});

const list = query({
  words: 'ls',
  aliases: ['list'],
  command: 'query-guests',
  positionals: [],
  flags: [
    {
      name: 'state',
      short: 's',
      member: 'states',
      description: 'Only guests in this state; may be given again',
    },
    { name: 'label', short: 'l', member: 'labels' },
    { name: 'filter', short: 'f', member: 'nameGlob', value: 'glob' },
    { name: 'wide', short: 'w', description: 'More columns' },
    {
      name: 'all-fields',
      description: 'With --json: every member of each guest, not only those of the table',
    },
  ],
  pages: 'guests',
  prepare: (args, { flags }, { json }) => {
    if (json && flags['all-fields'] === true) return args;
    return { ...args, fields: flags['wide'] === true ? wideFields : listFields };
  },
  print: (reply, { flags }, { io, note }) => {
    if (reply.guests.length === 0) note('No guests. Make one: roost create NAME --image IMAGE --start');
    return reply.guests.length === 0 ? [] : printGuests(reply.guests, io.now(), flags['wide'] === true);
  },
});

const logs: Verb = {
  words: 'logs',
  command: 'query-guest-log',
  summary:
    'Show what a guest wrote: to its console, or its main program of a container image; or another log',
  positionals: [guest],
  flags: [
    { name: 'follow', short: 'f', description: 'Go on with what comes, until Ctrl-C' },
    { name: 'console', description: 'Its serial console, also where it runs a container image' },
    { name: 'process', description: "Standard error of its process: QEMU, or a container's warden" },
    { name: 'events', description: "The process's own event log" },
    {
      name: 'bytes',
      short: 'n',
      type: 'size',
      value: 'size',
      description: 'Only the end, this long (default: 32KiB)',
    },
  ],
  run: async (...given) => (await import('../logs.ts')).showLog(...given),
};

const consoleVerb: Verb = {
  words: 'console',
  command: 'guest-console',
  summary: "Attach to a guest's serial console; Ctrl-] leaves",
  positionals: [guest],
  flags: [
    {
      name: 'replay',
      type: 'size',
      value: 'size',
      description: 'Show the end of what it wrote before, this long (default: 4KiB)',
    },
  ],
  run: async (...given) => (await import('../console.ts')).attachConsole(...given),
};

export const guestVerbs: readonly Verb[] = [
  create,
  change({
    words: 'start',
    command: 'guest-start',
    positionals: [guests],
    uses: ['guest-wait'],
    flags: [{ name: 'paused', member: 'paused' }, ...readyFlags],
    done: 'started',
    after: afterWithReady,
  }),
  change({
    words: 'stop',
    command: 'guest-stop',
    positionals: [guests],
    flags: [
      { name: 'force', short: 'f', member: 'force' },
      {
        name: 'timeout',
        short: 't',
        member: 'timeoutMs',
        description: 'How long to wait before force is used; the stop timeout of the guest unless given',
      },
      { name: 'mode', member: 'mode' },
    ],
    done: 'stopped',
  }),
  change({ words: 'reset', command: 'guest-reset', positionals: [guests], done: 'reset' }),
  change({ words: 'pause', command: 'guest-pause', positionals: [guests], done: 'paused' }),
  change({ words: 'resume', command: 'guest-resume', positionals: [guests], done: 'resumed' }),
  change({
    words: 'delete',
    aliases: ['rm'],
    command: 'guest-delete',
    positionals: [guests],
    flags: [{ name: 'force', short: 'f', member: 'force' }],
    done: 'deleted',
  }),
  change({
    words: 'rename',
    command: 'guest-rename',
    positionals: [guest, { name: 'NEW-NAME', member: 'newName' }],
    done: (args) => `renamed to ${String(args['newName'])}`,
  }),
  update,
  list,
  showVerb,
  query({
    words: 'plan',
    command: 'guest-plan',
    positionals: [guest],
    print: (reply) => printPlan(reply),
  }),
  ...findingVerbs,
  logs,
  consoleVerb,
  query({
    words: 'cloud-init show',
    command: 'query-guest-cloud-init',
    positionals: [guest],
    print: (reply) => printSeed(reply),
  }),
];

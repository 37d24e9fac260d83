/** Verbs on the disks and NICs of guests. */
import { change } from '../change.ts';
import { usageFailure } from '../failure.ts';
import { parseSize, UnitError } from '../units.ts';
import type { Flag, Positional, Verb } from '../verb.ts';

const guest: Positional = { name: 'GUEST', member: 'guest', complete: 'guest' };
const disk: Positional = { name: 'DISK', member: 'disk' };

const timeout: Flag = {
  name: 'timeout',
  short: 't',
  member: 'timeoutMs',
  description: 'How long to wait for a running guest to let go',
};

const sizeOf = (text: unknown): number => {
  try {
    return parseSize(String(text));
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw usageFailure(error.message);
  }
};

export const diskVerbs: readonly Verb[] = [
  change({
    words: 'disk attach',
    command: 'guest-disk-attach',
    positionals: [
      guest,
      {
        name: 'DISK',
        member: 'name',
        optional: true,
        description: 'Name of the disk: a new one with --image or --size, else one that the guest has kept',
      },
    ],
    flags: [
      { name: 'size', short: 's', member: 'sizeBytes' },
      { name: 'image', short: 'i', member: 'image', value: 'image', complete: 'image' },
      { name: 'read-only', member: 'readOnly', description: 'The guest may not write to it' },
    ],
    done: (_args, result) => `has disk ${String(result['device'])}`,
  }),
  change({
    words: 'disk detach',
    command: 'guest-disk-detach',
    positionals: [guest, disk],
    flags: [{ name: 'delete', member: 'delete' }, timeout],
    done: (args) =>
      args['delete'] === true
        ? `has disk ${String(args['disk'])} no more`
        : `has put disk ${String(args['disk'])} aside`,
  }),
  change({
    words: 'disk resize',
    command: 'guest-disk-resize',
    positionals: [guest, disk, { name: 'SIZE', member: 'sizeBytes', description: 'New size, as 20GiB' }],
    prepare: (args) => ({ ...args, sizeBytes: sizeOf(args['sizeBytes']) }),
    done: (args) => `has a larger disk ${String(args['disk'])}`,
  }),
  change({
    words: 'disk delete',
    aliases: ['disk rm'],
    command: 'guest-disk-delete',
    positionals: [guest, disk],
    done: (args) => `has disk ${String(args['disk'])} no more`,
  }),
];

export const nicVerbs: readonly Verb[] = [
  change({
    words: 'nic attach',
    command: 'guest-nic-attach',
    positionals: [guest, { name: 'NETWORK', member: 'network', complete: 'network' }],
    flags: [
      { name: 'name', short: 'n', member: 'name' },
      { name: 'mac', member: 'mac' },
      { name: 'ipv4', member: 'ipv4', value: 'address' },
    ],
    done: (args) => `has a NIC on ${String(args['network'])}`,
  }),
  change({
    words: 'nic detach',
    command: 'guest-nic-detach',
    positionals: [guest, { name: 'NIC', member: 'nic' }],
    flags: [timeout],
    done: (args) => `has NIC ${String(args['nic'])} no more`,
  }),
];

/**
 * The words a person types for a command of the contract, for hints, which speak of commands. A table of its own, so
 * that telling an error loads no verb; a test holds it against the verbs.
 */
import type { CommandName } from '../protocol/commands.ts';

export const verbWords: Readonly<Partial<Record<CommandName, string>>> = {
  'guest-create': 'create',
  'guest-update': 'update',
  'guest-rename': 'rename',
  'guest-start': 'start',
  'template-create': 'template create',
  'guest-fork': 'fork',
  'guest-clone': 'clone',
  'guest-save': 'save',
  'guest-stop': 'stop',
  'guest-reset': 'reset',
  'guest-pause': 'pause',
  'guest-resume': 'resume',
  'guest-delete': 'delete',
  'guest-disk-attach': 'disk attach',
  'guest-disk-detach': 'disk detach',
  'guest-disk-resize': 'disk resize',
  'guest-disk-delete': 'disk delete',
  'guest-cdrom-insert': 'cdrom insert',
  'guest-cdrom-eject': 'cdrom eject',
  'guest-nic-attach': 'nic attach',
  'guest-nic-detach': 'nic detach',
  'guest-reset-state': 'reset-state',
  'guest-adopt': 'adopt',
  'guest-plan': 'plan',
  'guest-console': 'console',
  'guest-wait': 'wait',
  'query-guest-addresses': 'address',
  'guest-info': 'agent',
  'guest-exec-session': 'exec',
  'guest-signal': 'kill',
  'query-guest-processes': 'top',
  'guest-attach': 'attach',
  'guest-file-open': 'cp',
  'guest-fsfreeze-freeze': 'freeze',
  'guest-fsfreeze-thaw': 'thaw',
  'query-disks': 'disk ls',
  'query-guests': 'ls',
  'query-guest': 'show',
  'query-guest-log': 'logs',
  'query-guest-qmp-log': 'qmp-log',
  'query-guest-cloud-init': 'cloud-init show',
  'image-import': 'image import',
  'image-pull': 'image pull',
  'image-build': 'image build',
  'image-delete': 'image delete',
  'image-prune': 'image prune',
  'image-alias-set': 'image alias',
  'image-alias-delete': 'image unalias',
  'query-image': 'image show',
  'query-images': 'image ls',
  'network-create': 'network create',
  'network-delete': 'network delete',
  'query-networks': 'network ls',
  'query-pools': 'pool ls',
  'token-create': 'token create',
  'token-revoke': 'token revoke',
  'query-tokens': 'token ls',
  'operation-wait': 'operation wait',
  'operation-cancel': 'operation cancel',
  'query-operations': 'operation ls',
  'query-events': 'events',
  'query-host': 'host',
  'query-daemon': 'daemon',
  'query-fsck': 'fsck',
  'host-shutdown-guests': 'shutdown-guests',
  'query-operation': 'explain',
  'query-guest-history': 'history',
};

const wordsOf = (command: string): string | undefined =>
  (verbWords as Readonly<Record<string, string | undefined>>)[command];

/** A hint of the daemon, in the words of this program. */
export const hintInVerbs = (hint: string): string =>
  hint
    .replace(/\bquery-schema with name ([a-z-]+) shows its arguments/, (all, command: string) => {
      const words = wordsOf(command);
      return words === undefined ? all : `'roost ${words} --help' shows its flags`;
    })
    .replace(/`?\b([a-z]+(?:-[a-z]+)+)\b`?/g, (all, command: string) => {
      const words = wordsOf(command);
      return words === undefined ? all : `'roost ${words}'`;
    });

/** The table of verbs: everything `roost` can do, in the order of help and the reference. */
import type { Verb } from './verb.ts';
import { agentVerbs } from './verbs/agent.ts';
import { containerVerbs } from './verbs/containers.ts';
import { daemonVerbs } from './verbs/daemon.ts';
import { cdromVerbs, diskVerbs, nicVerbs } from './verbs/devices.ts';
import { guestVerbs } from './verbs/guests.ts';
import { imageVerbs } from './verbs/images.ts';
import { recoveryVerbs } from './verbs/recovery.ts';
import { networkVerbs, operationVerbs, poolVerbs, tokenVerbs } from './verbs/resources.ts';
import { runningVerbs } from './verbs/running.ts';

export const verbs: readonly Verb[] = [
  ...guestVerbs,
  ...runningVerbs,
  ...containerVerbs,
  ...agentVerbs,
  ...diskVerbs,
  ...nicVerbs,
  ...cdromVerbs,
  ...imageVerbs,
  ...networkVerbs,
  ...poolVerbs,
  ...operationVerbs,
  ...tokenVerbs,
  ...recoveryVerbs,
  ...daemonVerbs,
];

/** First words that stand for several verbs. */
export const groupSummaries: Readonly<Record<string, string>> = {
  disk: 'Attach, detach, enlarge and delete disks of guests',
  cdrom: 'Change what is in CD-ROM drives of guests',
  nic: 'Attach and detach NICs of guests',
  'cloud-init': 'Show what cloud-init in a guest is told',
  image: 'Import, list, name and delete images',
  network: 'Create, list and delete networks',
  pool: 'List storage pools',
  operation: 'List, follow and cancel operations',
  token: 'Create, list and revoke tokens of the WebSocket',
};

/** The verb that the words begin with, also by an alias. */
export const findVerb = (words: readonly string[]): Verb | undefined =>
  verbs.find((verb) =>
    [verb.words, ...(verb.aliases ?? [])].some((name) => {
      const parts = name.split(' ');
      return parts.every((part, index) => words[index] === part);
    }),
  );

/** Verbs on what a container has written. */
import { parseImageReference } from '../../protocol/image-reference.ts';
import { change } from '../change.ts';
import type { Positional, Verb } from '../verb.ts';
import { afterWithReady, readyFlags } from '../waiting.ts';
import { madeAs } from './images.ts';

const guest: Positional = {
  name: 'GUEST',
  member: 'guest',
  description: 'A stopped container',
  complete: 'guest',
};

export const containerVerbs: readonly Verb[] = [
  change({
    words: 'clone',
    command: 'guest-clone',
    uses: ['guest-wait'],
    details:
      'What runs is forked instead, if it is a machine: roost fork. Files that hold the name or the machine id of the container are copied like all others.',
    positionals: [guest, { name: 'NAME', member: 'name', description: 'Name of the new container' }],
    flags: [{ name: 'start', short: 's', member: 'start' }, ...readyFlags],
    after: (_source, invocation, context) =>
      afterWithReady(String(invocation.positionals['NAME']), invocation, context),
    done: (args) => `cloned as ${String(args['name'])}${args['start'] === true ? ' and started' : ''}`,
  }),
  change({
    words: 'save',
    command: 'guest-save',
    details: 'Containers are made of it by roost create NAME --root IMAGE, as of any image of kind root.',
    positionals: [
      guest,
      {
        name: 'IMAGE',
        member: 'name',
        optional: true,
        description: 'NAME or NAME@VERSION of the image; the name of the container unless given',
        complete: 'image',
      },
    ],
    prepare: (args) => ({
      ...args,
      ...(typeof args['name'] === 'string' ? parseImageReference(args['name']) : {}),
    }),
    done: madeAs('saved'),
  }),
];

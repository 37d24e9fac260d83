/** docs/reference/types.md: words of the contract that have a meaning of their own. */
import { guestStates } from '../../protocol/guest.ts';
import { hostObjectKinds } from '../../protocol/host-object.ts';
import { operationStates } from '../../protocol/operation.ts';
import { roles } from '../../protocol/types.ts';
import { GENERATED, table } from './markdown.ts';

const words = (title: string, meanings: Readonly<Record<string, string>>): string =>
  [
    `## ${title}`,
    '',
    table(
      ['Word', 'Meaning'],
      Object.entries(meanings).map(([word, meaning]) => [`\`${word}\``, meaning]),
    ),
    '',
  ].join('\n');

export const typesReference = (): string =>
  [
    '# Words',
    GENERATED,
    '',
    words('States of a guest', guestStates),
    words('States of an operation', operationStates),
    words('Objects on the host', hostObjectKinds),
    '## Roles',
    '',
    `${roles.map((role) => `\`${role}\``).join(', ')}: each may do what those before it may. Members of the socket's group are \`admin\`.`,
  ].join('\n');

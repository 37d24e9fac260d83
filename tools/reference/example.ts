/** Example values of the contract: the required arguments of a command, with telling values. */
import type { Facts } from '../../cli/facts.ts';

/** Values by the name of the member; the rest follows from the type. */
const telling: Readonly<Record<string, unknown>> = {
  guest: 'web1',
  name: 'web1',
  newName: 'web2',
  image: 'debian-12',
  network: 'default',
  path: '/srv/debian-12.qcow2',
  operation: '01890a5d-ac96-774b-bcce-b302099a8057',
};

const byCommand: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'image-import': { name: 'debian-12' },
  'network-create': { name: 'lan' },
  'token-create': { name: 'console' },
  'token-revoke': { name: 'console' },
  'guest-create': {
    name: 'web1',
    disks: [{ image: 'debian-12' }],
    nics: [{ network: 'default' }],
    start: true,
  },
  'query-guests': { states: ['running'], fields: ['name', 'state'] },
  'query-schema': { name: 'guest-start' },
  'events-subscribe': { events: ['GUEST_STATE_CHANGED'], since: 0 },
};

const valueOf = (name: string, facts: Facts): unknown => {
  if (name in telling) return telling[name];
  if (facts.choices) return facts.choices[0];
  if (facts.type === 'integer' || facts.type === 'number') return facts.minimum ?? 0;
  if (facts.type === 'boolean') return true;
  return facts.type === 'list' ? [] : facts.type === 'string' ? '…' : {};
};

export const exampleRequest = (command: string, facts: Facts): object => {
  const required = Object.entries(facts.members ?? {}).filter(
    ([name, member]) => facts.required?.includes(name) === true && member.default === undefined,
  );
  const args = {
    ...Object.fromEntries(required.map(([name, member]) => [name, valueOf(name, member)])),
    ...byCommand[command],
  };
  return { execute: command, ...(Object.keys(args).length > 0 ? { arguments: args } : {}), id: 1 };
};

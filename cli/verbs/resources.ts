/** Verbs on networks, pools, tokens and operations. */
import { change } from '../change.ts';
import { CliFailure } from '../failure.ts';
import { lastingWait } from '../lasting.ts';
import { printNetworks, printOperation, printOperations, printPools, printTokens } from '../print/lists.ts';
import { argumentsOf, type Positional, query, type Verb } from '../verb.ts';

const network: Positional = { name: 'NAME', member: 'network', variadic: true, complete: 'network' };
const operationId: Positional = {
  name: 'ID',
  description: "Id of an operation, as in 'roost operation ls'",
  complete: 'operation',
};
const operation: Positional = { ...operationId, member: 'operation' };

export const networkVerbs: readonly Verb[] = [
  change({
    words: 'network create',
    command: 'network-create',
    positionals: [{ name: 'NAME', member: 'name', description: 'Name of the new network: a DNS label' }],
    flags: [
      {
        name: 'kind',
        short: 'k',
        member: 'kind',
        value: 'kind',
        description:
          'nat reaches out through the host, isolated does not, bridge joins a bridge of the host, user is a stack of its own for each guest',
      },
      { name: 'bridge', short: 'b', member: 'bridge', value: 'link' },
      { name: 'subnet', member: 'subnet', value: 'cidr' },
    ],
    done: 'created',
  }),
  query({
    words: 'network ls',
    aliases: ['network list'],
    command: 'query-networks',
    details:
      'Under names stands how guests are found from the host; an address after @ is that of the DNS server to ask, as in `dig @10.91.1.1 web1.lan`.',
    pages: 'networks',
    print: (reply) => printNetworks(reply.networks),
  }),
  change({
    words: 'network delete',
    aliases: ['network rm'],
    command: 'network-delete',
    positionals: [network],
    done: 'deleted',
  }),
];

export const poolVerbs: readonly Verb[] = [
  query({
    words: 'pool ls',
    aliases: ['pool list'],
    command: 'query-pools',
    print: (reply) => printPools(reply.pools),
  }),
];

export const tokenVerbs: readonly Verb[] = [
  query({
    words: 'token create',
    command: 'token-create',
    positionals: [
      {
        name: 'NAME',
        member: 'name',
        optional: true,
        description: 'Name of the new token; else one is made up',
      },
    ],
    flags: [{ name: 'role', short: 'r', member: 'role', description: 'What its holder may do' }],
    print: (reply, _, { note }) => {
      note(`Token '${reply.name}' (${reply.role}); this is shown once:`);
      return [reply.token];
    },
  }),
  query({
    words: 'token ls',
    aliases: ['token list'],
    command: 'query-tokens',
    print: (reply, _, { io }) => printTokens(reply.tokens, io.now()),
  }),
  query({
    words: 'token revoke',
    aliases: ['token rm'],
    command: 'token-revoke',
    positionals: [{ name: 'NAME', member: 'name', description: 'Name of the token', complete: 'token' }],
    print: (reply) => [`${reply.name} revoked`],
  }),
];

const DEFAULT_OPERATIONS = 50;

const showOperation: Verb = {
  words: 'operation show',
  command: 'query-operations',
  summary: 'Show one operation with its steps',
  positionals: [operationId],
  flags: [],
  run: async (invocation, { client, io, json, print, printJson, signal }) => {
    const id = String(invocation.positionals['ID']);
    const connection = await client();
    const reply = await connection.callAny('query-operations', { ids: [id] }, { signal });
    const [found] = (reply as { operations: Parameters<typeof printOperation>[0][] }).operations;
    if (!found) {
      const hint = "'roost operation ls' lists the latest.";
      throw new CliFailure({ class: 'NotFound', desc: `There is no operation ${id}`, hint });
    }
    if (json) printJson(found);
    else print(printOperation(found, io.now()));
    return 0;
  },
};

const waitForOperation: Verb = {
  words: 'operation wait',
  command: 'operation-wait',
  positionals: [operation],
  flags: [{ name: 'timeout', short: 't', member: 'timeoutMs', description: 'Give up waiting after this' }],
  run: async (invocation, context) => {
    const { io, json, print, printJson } = context;
    const ended = await lastingWait(context, 'operation-wait', argumentsOf(waitForOperation, invocation));
    if (json) printJson(ended);
    else print(printOperation(ended, io.now()));
    if (ended.error) throw new CliFailure(ended.error);
    return ended.state === 'succeeded' ? 0 : 1;
  },
};

export const operationVerbs: readonly Verb[] = [
  query({
    words: 'operation ls',
    aliases: ['operation list'],
    command: 'query-operations',
    flags: [
      { name: 'subject', short: 's', member: 'subject' },
      { name: 'state', member: 'states', description: 'Only operations in this state; may be given again' },
      {
        name: 'limit',
        short: 'n',
        member: 'limit',
        description: `At most so many (default: ${DEFAULT_OPERATIONS})`,
      },
    ],
    fixed: { limit: DEFAULT_OPERATIONS },
    print: (reply, _, { io, note }) => {
      if (reply.next !== undefined) note('There are older ones: see them with --limit.');
      return printOperations(reply.operations, io.now());
    },
  }),
  showOperation,
  waitForOperation,
  query({
    words: 'operation cancel',
    command: 'operation-cancel',
    positionals: [operation],
    print: (reply, _, { io }) => printOperation(reply, io.now()),
  }),
];

/** Verbs on the host, the daemon, its events and the contract itself. */
import { packageText, versionText } from '../../protocol/version.ts';
import { CliFailure, usageFailure } from '../failure.ts';
import { printDaemon, printHost } from '../print/host.ts';
import { argumentsOf, query, type Verb } from '../verb.ts';

const events: Verb = {
  words: 'events',
  command: 'query-events',
  uses: ['events-subscribe'],
  summary: 'Show what has happened, and with --follow what happens',
  details: "Without --event or --all these are the events of guests' lifecycles.",
  positionals: [],
  flags: [
    { name: 'follow', short: 'f', description: 'Go on with what comes, until Ctrl-C' },
    { name: 'since', short: 's', member: 'since', value: 'sequence' },
    { name: 'guest', short: 'g', member: 'guests', complete: 'guest', value: 'name' },
    { name: 'event', short: 'e', member: 'events', description: 'Only these events; may be given again' },
    { name: 'all', short: 'a', description: 'Every kind of event' },
  ],
  run: async (...given) => (await import('../show-events.ts')).showEvents(...given),
};

const version: Verb = {
  words: 'version',
  command: 'query-version',
  summary: 'Show the versions of roost and of the daemon',
  positionals: [],
  flags: [],
  run: async (_, { client, json, print, printJson, signal }) => {
    let daemon: string | undefined;
    let failure: CliFailure | undefined;
    try {
      daemon = (await (await client()).call('query-version', {}, { signal })).package;
    } catch (error) {
      if (!(error instanceof CliFailure)) throw error;
      failure = error;
    }
    if (json) printJson({ client: packageText, ...(daemon === undefined ? {} : { daemon }) });
    else
      print([
        `roost    ${versionText}`,
        ...(daemon === undefined ? [] : [`roostd   ${daemon.replace('roost-', '')}`]),
      ]);
    if (failure) throw failure;
    return 0;
  },
};

/** Commands that make no sense alone, with what to use instead. */
const notAlone: Readonly<Record<string, string>> = {
  qmp_capabilities: 'Every connection of roost sends it by itself.',
  'guest-console': "Use 'roost console NAME'.",
  'events-subscribe': "Use 'roost events --follow'.",
};

const api: Verb = {
  words: 'api',
  uses: ['query-commands', 'query-schema'],
  summary: 'Call a command of the contract as it is, and print its reply',
  details:
    "JSON is an object with the arguments, or - to read it from standard input. 'roost api query-schema' lists all commands.",
  positionals: [
    { name: 'COMMAND', description: 'Name of the command, as guest-start', complete: 'command' },
    { name: 'JSON', optional: true, description: 'Its arguments' },
  ],
  flags: [],
  run: async ({ positionals }, { client, io, printJson, signal }) => {
    const command = String(positionals['COMMAND']);
    const instead = notAlone[command];
    if (instead !== undefined) throw usageFailure(`'${command}' cannot be called alone`, instead);
    const given = positionals['JSON'] ?? '{}';
    const { parseJsonObject, readJsonObject } = await import('../guest-input.ts');
    const args =
      given === '-' ? await readJsonObject(given, io) : parseJsonObject(String(given), 'The argument');
    printJson(await (await client()).callAny(command, args, { signal }));
    return 0;
  },
};

const completion: Verb = {
  words: 'completion',
  summary: 'Print the completion script of a shell',
  details:
    'In ~/.bashrc: source <(roost completion bash). In ~/.zshrc, after compinit: source <(roost completion zsh). For fish: roost completion fish > ~/.config/fish/completions/roost.fish.',
  positionals: [{ name: 'SHELL', description: 'Which shell', choices: ['bash', 'zsh', 'fish'] }],
  flags: [],
  run: async ({ positionals }, { io }) => {
    const { completionScript } = await import('../completion.ts');
    io.stdout.write(completionScript(String(positionals['SHELL'])));
    return 0;
  },
};

const shutdownGuests: Verb = {
  words: 'shutdown-guests',
  command: 'host-shutdown-guests',
  uses: ['operation-wait'],
  details:
    'roost-guests.service does so when the host stops. What is asked of a guest stays as it is, so that autostart brings it back.',
  positionals: [],
  flags: [{ name: 'timeout', short: 't', member: 'timeoutMs', value: 'duration' }],
  run: async (invocation, { client, json, print, printJson, note, signal }) => {
    const connection = await client();
    const args = argumentsOf(shutdownGuests, invocation) as { timeoutMs?: number };
    const { operation } = await connection.call('host-shutdown-guests', args, { signal });
    const ended = await connection.call('operation-wait', { operation }, { signal });
    if (ended.error) throw new CliFailure(ended.error);
    const { guests = [], problems = [] } = (ended.result ?? {}) as {
      readonly guests?: readonly string[];
      readonly problems?: readonly string[];
    };
    if (json) printJson(ended);
    else print(guests.length === 0 ? 'No guest runs.' : `Shut down: ${guests.join(', ')}`);
    for (const problem of problems) note(problem);
    return problems.length === 0 ? 0 : 1;
  },
};

export const daemonVerbs: readonly Verb[] = [
  events,
  query({ words: 'host', command: 'query-host', print: (reply) => printHost(reply) }),
  query({
    words: 'daemon',
    command: 'query-daemon',
    print: (reply, _, { io }) => printDaemon(reply, io.now()),
  }),
  shutdownGuests,
  version,
  api,
  completion,
];

/**
 * The one way in: from a request to a handler. Every door ends here. Name, role and arguments are checked before the
 * handler is called, so that a refused request has no effect at all.
 */
import { nearestNames } from '../../lib/nearest-names.ts';
import { type CommandName, commandNames, findCommand } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import { roleIncludes } from '../../protocol/types.ts';
import { issuesOf, type Request } from '../../protocol/wire.ts';
import type { Call, Handler, Handlers } from './call.ts';

export interface Dispatch {
  /** Whether this command may take long and is run beside others of its connection. */
  mayWait(name: string): boolean;
  /** Errors: CommandNotFound, PermissionDenied, InvalidArgument, and the handler's own. */
  call(request: Request, call: Call): unknown;
}

const notFound = (name: string): RoostError => {
  const [candidate] = nearestNames(name, commandNames);
  return new RoostError('CommandNotFound', `The command ${name} has not been found`, {
    data: { command: name, ...(candidate === undefined ? {} : { candidate }) },
    hint: candidate === undefined ? 'query-commands lists them all.' : `Did you mean ${candidate}?`,
  });
};

export const createDispatch = (handlers: Handlers): Dispatch => ({
  mayWait: (name) => findCommand(name)?.nature === 'wait',
  call: (request, call) => {
    const command = findCommand(request.execute);
    if (!command) throw notFound(request.execute);
    if (!roleIncludes(call.role, command.role))
      throw new RoostError(
        'PermissionDenied',
        `${command.name} needs the role ${command.role}, and this client has ${call.role}`,
        {
          data: { command: command.name, needed: command.role, held: call.role },
          hint: 'Use a token with that role, or the socket of the daemon.',
        },
      );
    const parsed = command.arguments.safeParse(request.arguments);
    if (!parsed.success) {
      const issues = issuesOf(parsed.error);
      const words = issues
        .slice(0, 3)
        .map((issue) => (issue.path ? `${issue.path}: ${issue.message}` : issue.message));
      throw new RoostError('InvalidArgument', `${command.name}: ${words.join('; ')}`, {
        data: { command: command.name, issues },
        hint: `query-schema with name ${command.name} shows its arguments.`,
      });
    }
    // The table gives each name the handler of its own arguments; the compiler cannot follow that through a variable.
    const handler = handlers[command.name] as Handler<CommandName>;
    return handler(parsed.data as Parameters<typeof handler>[0], call);
  },
});

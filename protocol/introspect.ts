/** The contract described by itself: query-commands and query-schema. */
import { z } from 'zod';
import { type CommandName, commandNames, findCommand } from './commands.ts';
import { errorClasses, RoostError } from './errors.ts';
import { type EventName, eventNames, events } from './events.ts';

type Json = z.infer<ReturnType<typeof z.json>>;

const jsonSchema = (schema: z.ZodType, io: 'input' | 'output'): Json =>
  z.toJSONSchema(schema, { io, unrepresentable: 'any' }) as Json;

const describeCommand = (name: CommandName): Record<string, Json> => {
  const command = findCommand(name);
  if (!command) throw new RoostError('Internal', `Command ${name} is listed but not declared`);
  return {
    kind: 'command',
    name: command.name,
    summary: command.summary,
    ...(command.description === undefined ? {} : { description: command.description }),
    role: command.role,
    nature: command.nature,
    since: command.since,
    arguments: jsonSchema(command.arguments, 'input'),
    returns: jsonSchema(command.returns, 'output'),
  };
};

const describeEvent = (name: EventName): Record<string, Json> => ({
  kind: 'event',
  name,
  lifecycle: events[name].lifecycle,
  data: jsonSchema(events[name].data, 'output'),
});

/** The list of all there is. */
export const describeContract = (): Record<string, Json> => ({
  commands: commandNames.map((name) => {
    const command = findCommand(name);
    return {
      name,
      summary: command?.summary ?? '',
      role: command?.role ?? 'admin',
      nature: command?.nature ?? 'query',
    };
  }),
  events: [...eventNames],
  errors: { ...errorClasses },
});

/** One command or event. Errors: NotFound. */
export const describeByName = (name: string): Record<string, Json> => {
  const command = findCommand(name);
  if (command) return describeCommand(command.name);
  if ((eventNames as readonly string[]).includes(name)) return describeEvent(name as EventName);
  throw new RoostError('NotFound', `Nothing in the contract is called '${name}'`, {
    data: { name },
    hint: 'query-schema without a name lists all commands and events.',
  });
};

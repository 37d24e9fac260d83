/**
 * Changing commands: send them, wait for their operations, say how each ended. Several at once are sent together. An
 * interrupt ends the waiting only; the operations go on, and the user is told how to follow or cancel them.
 */
import type { CommandName } from '../protocol/commands.ts';
import type { EventData } from '../protocol/events.ts';
import type { OperationView } from '../protocol/operation.ts';
import type { Client } from './client.ts';
import { worstOf } from './exit-codes.ts';
import { CliFailure, failureLines, Interrupted, toFailure } from './failure.ts';
import type { Context } from './io.ts';
import { lastingCall, lastingWait } from './lasting.ts';
import { progressText } from './print/lists.ts';
import { ProgressLine } from './progress.ts';
import {
  type Arguments,
  argumentsOf,
  type Flag,
  type Invocation,
  type Positional,
  type Prepare,
  type Verb,
} from './verb.ts';
import type { AfterChange } from './waiting.ts';

/** One change of one thing. */
interface Change {
  /** What it is done to, as the user wrote it. */
  readonly subject: string;
  readonly command: CommandName;
  readonly args: Arguments;
  /** What has happened to the subject then, as `started`. */
  readonly done: (result: Arguments) => string;
  /** Done after it has succeeded; resolves with words on that. */
  readonly after?: (context: Context) => Promise<string | undefined>;
}

type Outcome =
  | {
      readonly kind: 'ended';
      readonly change: Change;
      readonly operation: OperationView;
      /** Words on what was done after it. */
      readonly also?: string;
    }
  | { readonly kind: 'accepted'; readonly change: Change; readonly operation: string }
  | {
      readonly kind: 'left';
      readonly change: Change;
      readonly operation: string | undefined;
      readonly exitCode: number;
    }
  | { readonly kind: 'failed'; readonly change: Change; readonly failure: CliFailure };

const operationFailure = (operation: OperationView): CliFailure | undefined => {
  if (operation.state === 'succeeded') return undefined;
  return new CliFailure(
    operation.error ?? {
      class: operation.state === 'cancelled' ? 'Cancelled' : 'Internal',
      desc: operation.state === 'cancelled' ? 'Somebody cancelled it' : `It ended as ${operation.state}`,
    },
  );
};

const follow = (operation: string): string =>
  `follow it with 'roost operation wait ${operation}', end it with 'roost operation cancel ${operation}'`;

const warningsOf = (reply: Arguments): readonly string[] =>
  Array.isArray(reply['warnings']) ? reply['warnings'].map(String) : [];

interface Told {
  readonly accepted: (operation: string) => void;
  readonly warned: (warning: string) => void;
}

/** With a key of its own a request may be sent again: it is the same operation, also for the next daemon. */
const withKey = (args: Arguments): Arguments =>
  args['idempotencyKey'] === undefined ? { ...args, idempotencyKey: crypto.randomUUID() } : args;

const carryOut = async (change: Change, context: Context, tell: Told): Promise<Outcome> => {
  let operation: string | undefined;
  try {
    const args = withKey(change.args);
    const reply = (await lastingCall(context, change.command, () => args)) as Arguments;
    operation = String(reply['operation']);
    for (const warning of warningsOf(reply)) tell.warned(warning);
    if (!context.wait) return { kind: 'accepted', change, operation };
    tell.accepted(operation);
    const ended = await lastingWait(context, 'operation-wait', { operation });
    operation = undefined;
    const also = ended.state === 'succeeded' ? await change.after?.(context) : undefined;
    return { kind: 'ended', change, operation: ended, ...(also === undefined ? {} : { also }) };
  } catch (error) {
    if (error instanceof Interrupted) return { kind: 'left', change, operation, exitCode: error.exitCode };
    return { kind: 'failed', change, failure: toFailure(error) };
  }
};

const report = (outcome: Outcome, context: Context, several: boolean): number => {
  const { subject, done } = outcome.change;
  const fail = (failure: CliFailure): number => {
    if (context.json) context.note(JSON.stringify({ error: failure.wire }));
    else context.note(failureLines(failure, several ? { subject } : {}));
    return failure.exitCode;
  };
  if (outcome.kind === 'accepted') {
    if (!context.json) context.print(outcome.operation);
    return 0;
  }
  if (outcome.kind === 'left') {
    context.note(
      outcome.operation === undefined
        ? `${subject}: interrupted; what was asked for goes on, see 'roost operation ls --subject ${subject}'`
        : `${subject}: the operation goes on; ${follow(outcome.operation)}`,
    );
    return outcome.exitCode;
  }
  if (outcome.kind === 'failed') return fail(outcome.failure);
  const failure = operationFailure(outcome.operation);
  if (failure) return fail(failure);
  if (context.json) return 0;
  const did = done(outcome.operation.result ?? {});
  context.print([subject, did, outcome.also && `and ${outcome.also}`].filter(Boolean).join(' '));
  for (const warning of warningsOf(outcome.operation.result ?? {})) context.note(`${subject}: ${warning}`);
  for (const text of gaveUpOn(outcome.operation)) context.note(`${subject}: gave up on ${text}`);
  return 0;
};

/** What a forced change went on without. */
const gaveUpOn = ({ result }: OperationView): readonly string[] => {
  const texts = result?.['gaveUpOn'];
  return Array.isArray(texts) ? texts.map(String) : [];
};

/** What `--json` prints of an outcome, if anything. */
const documentsOf = (outcome: Outcome): readonly unknown[] => {
  if (outcome.kind === 'ended') return [outcome.operation];
  return outcome.kind === 'accepted' ? [{ operation: outcome.operation }] : [];
};

/** Progress inside a step makes no event, for events are kept: it is asked for so often. */
const ASK_INTERVAL_MS = 500;

/** Shows how far the operations are in their steps, until the line is closed. */
const askForProgress = (context: Context, line: ProgressLine): void => {
  const ask = async (): Promise<void> => {
    const { operations: ids } = line;
    if (ids.length === 0) return;
    const client = await context.client();
    const { operations } = await client.call(
      'query-operations',
      { ids: [...ids] },
      { signal: context.signal },
    );
    for (const operation of operations)
      if (operation.progress) line.update(operation.id, progressText(operation) ?? operation.state);
  };
  // A lost connection is reported by the waiting calls.
  const timer = setInterval(() => void ask().catch(() => undefined), ASK_INTERVAL_MS);
  line.onClose = () => clearInterval(timer);
  timer.unref();
};

/** Shows the step of each operation while it runs, on a terminal only. */
const watchProgress = async (context: Context): Promise<ProgressLine | undefined> => {
  if (!context.wait || context.json || context.io.stderr.isTTY !== true) return undefined;
  const line = new ProgressLine(context.io.stderr);
  const show = async (client: Client): Promise<void> => {
    const stream = client.events();
    await client.call('events-subscribe', { events: ['OPERATION_CHANGED'] }, { signal: context.signal });
    try {
      for await (const { data } of stream) {
        const { operation, state, step = state } = data as EventData<'OPERATION_CHANGED'>;
        line.update(operation, step);
      }
    } catch (error) {
      if (!line.isClosed) await show(await context.again(client, error));
    }
  };
  // A lost connection is reported by the waiting calls.
  show(await context.client()).catch(() => undefined);
  askForProgress(context, line);
  return line;
};

const runChanges = async (changes: readonly Change[], context: Context): Promise<number> => {
  const line = await watchProgress(context);
  const several = changes.length > 1;
  const outcomes = await Promise.all(
    changes.map(async (change) => {
      const outcome = await carryOut(change, context, {
        accepted: (id) => line?.add(id, change.subject),
        warned: (warning) => {
          const note = (): void =>
            context.note(context.json ? JSON.stringify({ warning }) : `warning: ${warning}`);
          if (line) line.aside(note);
          else note();
        },
      });
      const code = line
        ? line.aside(() => report(outcome, context, several))
        : report(outcome, context, several);
      if (outcome.kind === 'ended') line?.remove(outcome.operation.id);
      return { outcome, code };
    }),
  );
  line?.close();
  if (context.json) {
    const documents = outcomes.flatMap(({ outcome }) => documentsOf(outcome));
    if (several) context.printJson(documents);
    else if (documents.length > 0) context.printJson(documents[0]);
  }
  return worstOf(outcomes.map(({ code }) => code));
};

interface ChangeRow extends Omit<Verb, 'run' | 'positionals' | 'flags' | 'changes'> {
  readonly command: CommandName;
  /** The first names what is changed. */
  readonly positionals: readonly [Positional, ...Positional[]];
  readonly flags?: readonly Flag[];
  readonly fixed?: Arguments;
  readonly prepare?: Prepare;
  /** What has happened then, as `started`. */
  readonly done: string | ((args: Arguments, result: Arguments) => string);
  readonly after?: AfterChange;
}

/** A verb that changes something by a journaled operation. */
export const change = (row: ChangeRow): Verb => {
  const { fixed, prepare, done, after, positionals, flags = [], ...verb } = row;
  const [subjectPositional] = positionals;
  const changeOf = async (subject: string, invocation: Invocation, context: Context): Promise<Change> => {
    const one = {
      ...invocation,
      positionals: { ...invocation.positionals, [subjectPositional.name]: subject },
    };
    const given = argumentsOf({ positionals, flags }, one, fixed);
    const args = prepare ? await prepare(given, one, context) : given;
    return {
      subject,
      command: row.command,
      args,
      done: (result) => (typeof done === 'string' ? done : done(args, result)),
      ...(after ? { after: (context) => after(subject, one, context) } : {}),
    };
  };
  return {
    ...verb,
    positionals,
    flags,
    changes: true,
    run: async (invocation, context) => {
      const named = invocation.positionals[subjectPositional.name] ?? [];
      const subjects = [...new Set(typeof named === 'string' ? [named] : named)];
      const changes = await Promise.all(subjects.map((subject) => changeOf(subject, invocation, context)));
      return runChanges(changes, context);
    },
  };
};

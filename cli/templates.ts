/** `roost template create` and `roost fork`: a container image booted and kept, and guests made of it. */
import type { GuestView } from '../protocol/guest.ts';
import { CliFailure, failureLines, toFailure } from './failure.ts';
import type { Context } from './io.ts';
import { lastingCall } from './lasting.ts';
import { randomHex } from './random-hex.ts';
import { buildWhatIsMissing, carryOut, imageFor, textOf } from './run-image.ts';
import type { Invocation } from './verb.ts';

/** Makes the guest first, where an image is given. */
export const createTemplate = async (
  { flags, positionals }: Invocation,
  context: Context,
): Promise<number> => {
  const name = String(positionals['NAME']);
  const reference = textOf(flags, 'image');
  const from = textOf(flags, 'from');
  if (from !== undefined && reference !== undefined)
    throw new CliFailure({ class: 'InvalidArgument', desc: 'give either --from or --image' });
  if (from !== undefined) {
    await makeOfRunning(context, from, name);
    return await tellCreated(context, name);
  }
  if (reference !== undefined) {
    await buildWhatIsMissing(context);
    const image = await imageFor(context, reference);
    const network = textOf(flags, 'network');
    await carryOut(context, 'guest-create', {
      name,
      machine: textOf(flags, 'machine') ?? 'microvm',
      program: { image },
      ...(flags['memory'] === undefined ? {} : { memoryBytes: Number(flags['memory']) }),
      ...(flags['cpus'] === undefined ? {} : { cpu: { count: Number(flags['cpus']) } }),
      ...(network === undefined ? {} : { nics: [{ network }] }),
      idempotencyKey: crypto.randomUUID(),
    });
  }
  try {
    await carryOut(context, 'template-create', { guest: name, idempotencyKey: crypto.randomUUID() });
  } catch (error) {
    // Made for nothing else.
    if (reference !== undefined)
      await carryOut(context, 'guest-delete', {
        guest: name,
        force: true,
        idempotencyKey: crypto.randomUUID(),
      }).catch(() => undefined);
    throw error;
  }
  return await tellCreated(context, name);
};

const viewOf = async (context: Context, guest: string): Promise<GuestView> =>
  (await lastingCall(context, 'query-guest', () => ({ guest }))) as GuestView;

const tellCreated = async (context: Context, name: string): Promise<number> => {
  if (context.json) context.printJson(await viewOf(context, name));
  else context.print(`${name}: template created; 'roost fork ${name}' makes guests of it`);
  return 0;
};

/** The guest itself goes on as the first fork of what it was. */
const makeOfRunning = async (context: Context, guest: string, name: string): Promise<void> => {
  const made = await carryOut(context, 'template-create', {
    guest,
    name,
    idempotencyKey: crypto.randomUUID(),
  });
  const pausedMs = made.result?.['pausedMs'];
  if (typeof pausedMs === 'number') context.note(`roost: ${guest} stood still for ${pausedMs} ms`);
};

/** What is to be forked: a template, or one that is made now of a guest that runs. */
const templateOf = async (context: Context, reference: string): Promise<string> => {
  const { name, template, state } = await viewOf(context, reference);
  if (template !== undefined || state !== 'running') return reference;
  const made = `${name}-as-of-${randomHex(3)}`;
  await makeOfRunning(context, name, made);
  context.note(`roost: template ${made} keeps what it was; 'roost fork ${made}' makes more of it`);
  return made;
};

const forkOne = async (
  invocation: Invocation,
  context: Context,
  { template, name }: { readonly template: string; readonly name: string },
): Promise<void> => {
  const { flags, positionals } = invocation;
  const command = positionals['CMD'];
  const entrypoint = textOf(flags, 'entrypoint');
  const program = {
    ...(Array.isArray(command) && command.length > 0 ? { command } : {}),
    ...(entrypoint === undefined ? {} : { entrypoint: [entrypoint] }),
    ...(Array.isArray(flags['env']) ? { environment: flags['env'].map(String) } : {}),
  };
  await carryOut(context, 'guest-fork', {
    template,
    name,
    ...(Object.keys(program).length === 0 ? {} : { program }),
    idempotencyKey: crypto.randomUUID(),
  });
};

/** Each is made for itself: what fails does not take the others with it. */
export const fork = async (invocation: Invocation, context: Context): Promise<number> => {
  const { flags, positionals } = invocation;
  const count = Number(flags['count'] ?? 1);
  const given = textOf(flags, 'name');
  if (!Number.isSafeInteger(count) || count < 1)
    throw new CliFailure({ class: 'InvalidArgument', desc: '--count is at least 1' });
  const base = given ?? `${String(positionals['TEMPLATE'])}-${randomHex(3)}`;
  const names = count === 1 ? [base] : Array.from({ length: count }, (_, index) => `${base}-${index + 1}`);
  const template = await templateOf(context, String(positionals['TEMPLATE']));
  const forked = await Promise.allSettled(
    names.map(async (name) => {
      await forkOne(invocation, context, { template, name });
      return name;
    }),
  );
  let exitCode = 0;
  for (const [index, result] of forked.entries()) {
    if (result.status === 'fulfilled') {
      context.print(result.value);
      continue;
    }
    const failure = toFailure(result.reason);
    exitCode = Math.max(exitCode, failure.exitCode);
    for (const line of failureLines(failure, { subject: names[index] ?? base })) context.note(line);
  }
  return exitCode;
};

/**
 * `roost run`: a container image as a guest of its own, from the pull to the exit code. What is missing on the way is
 * made: the images that every microVM boots by, and the image itself. The guest belongs to the daemon like any other;
 * with --rm it is deleted when it has ended, or when this command is interrupted; by the daemon, if this command is killed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandInput, CommandName } from '../protocol/commands.ts';
import type { FilesystemSpecInput } from '../protocol/filesystem.ts';
import type { GuestView } from '../protocol/guest.ts';
import { imageNameOf, parseOciReference } from '../protocol/oci-reference.ts';
import type { OperationView } from '../protocol/operation.ts';
import { type AttachOptions, attachHere, requireTerminal } from './attach.ts';
import { exitCodeOf as endOfSession } from './byte-session.ts';
import { CliFailure, Interrupted, toFailure } from './failure.ts';
import { parseForward } from './forward.ts';
import type { Context } from './io.ts';
import { lastingCall, lastingWait } from './lasting.ts';
import { exitCodeOfRefusal, programCodes } from './program-exit.ts';
import { randomHex } from './random-hex.ts';
import { UnitError } from './units.ts';
import type { Arguments, Invocation } from './verb.ts';
import { parseVolume } from './volume.ts';

type Streams = Pick<AttachOptions, 'terminal' | 'interactive'>;

/** The log grows without notice, so it is looked at. */
const LOOK_MS = 100;
const MAX_PART_BYTES = 65_536;
/** With --rm, when nobody has taken what it wrote and deleted it: then this command is gone, and the daemon does. */
const LEFT_ALONE_MS = 60_000;
const MICROVM_IMAGES = ['microvm-kernel', 'microvm-init', 'microvm-upper'] as const;

/** Sends a change, waits for its end and gives it. Throws CliFailure when it failed. */
export const carryOut = async (
  context: Context,
  name: CommandName,
  args: Arguments,
): Promise<OperationView> => {
  const { operation } = (await lastingCall(context, name, () => args)) as { readonly operation: string };
  const ended = await lastingWait(context, 'operation-wait', { operation });
  if (ended.state === 'succeeded') return ended;
  throw new CliFailure(ended.error ?? { class: 'Cancelled', desc: `${name} ended as ${ended.state}` });
};

const isMissing = async (context: Context, image: string): Promise<boolean> => {
  try {
    await lastingCall(context, 'query-image', () => ({ image }));
    return false;
  } catch (error) {
    if (toFailure(error).wire.class === 'NotFound') return true;
    throw error;
  }
};

export const buildWhatIsMissing = async (context: Context): Promise<void> => {
  for (const recipe of MICROVM_IMAGES) {
    if (!(await isMissing(context, recipe))) continue;
    context.note(`roost: building ${recipe}, once`);
    await carryOut(context, 'image-build', { recipe, idempotencyKey: randomHex(8) });
  }
};

/** The names under which a reference may be here: as it is written, and as a pull calls it. */
const namesHere = (reference: string): readonly string[] => {
  const parsed = parseOciReference(reference);
  return parsed ? [reference, imageNameOf(parsed)] : [reference];
};

/** The name of the image here; one that is not here is pulled. */
export const imageFor = async (context: Context, reference: string): Promise<string> => {
  for (const name of new Set(namesHere(reference))) if (!(await isMissing(context, name))) return name;
  context.note(`roost: pulling ${reference}`);
  const pulled = await carryOut(context, 'image-pull', {
    reference,
    idempotencyKey: randomHex(8),
  });
  const image = pulled.result?.['image'];
  return typeof image === 'string' ? image : reference;
};

export const textOf = (flags: Invocation['flags'], flag: string): string | undefined => {
  const value = flags[flag];
  return typeof value === 'string' ? value : undefined;
};

/** What is to be made of the command line. */
const specOf = (invocation: Invocation, image: string, name: string): CommandInput<'guest-create'> => {
  const { flags, positionals } = invocation;
  const command = positionals['CMD'];
  const text = (flag: string): string | undefined => textOf(flags, flag);
  const [workingDirectory, user, entrypoint, network] = ['workdir', 'user', 'entrypoint', 'network'].map(
    text,
  );
  return {
    name,
    machine: text('machine') ?? 'microvm',
    program: {
      image,
      ...(Array.isArray(command) && command.length > 0 ? { command } : {}),
      ...(entrypoint === undefined ? {} : { entrypoint: [entrypoint] }),
      ...(Array.isArray(flags['env']) ? { environment: flags['env'].map(String) } : {}),
      ...(workingDirectory === undefined ? {} : { workingDirectory }),
      ...(user === undefined ? {} : { user }),
      ...(flags['terminal'] === true ? { terminal: true } : {}),
      ...(flags['interactive'] === true ? { interactive: true } : {}),
    },
    ...(flags['memory'] === undefined ? {} : { memoryBytes: Number(flags['memory']) }),
    ...(flags['cpus'] === undefined ? {} : { cpu: { count: Number(flags['cpus']) } }),
    ...nicsOf(network, flags['publish']),
    ...filesystemsOf(flags['volume']),
    ...(flags['rm'] === true ? { deleteAfterEndMs: flags['detach'] === true ? 0 : LEFT_ALONE_MS } : {}),
    start: true,
  };
};

/** Ports that are published need a network; which, is for the user to say. */
const nicsOf = (
  network: string | undefined,
  published: Invocation['flags'][string],
): Pick<CommandInput<'guest-create'>, 'nics'> => {
  const forwards = Array.isArray(published) ? published.map((text) => forwardOf(String(text))) : [];
  if (network !== undefined) return { nics: [{ network, ...(forwards.length === 0 ? {} : { forwards }) }] };
  if (forwards.length === 0) return {};
  throw new CliFailure({
    class: 'InvalidArgument',
    desc: '--publish needs a network',
    hint: "Give one with --network; 'roost network create NAME' makes one.",
  });
};

type Forward = NonNullable<NonNullable<CommandInput<'guest-create'>['nics']>[number]['forwards']>[number];

const filesystemsOf = (
  volumes: Invocation['flags'][string],
): Pick<CommandInput<'guest-create'>, 'filesystems'> =>
  Array.isArray(volumes) ? { filesystems: volumes.map((text) => volumeOf(String(text))) } : {};

const volumeOf = (text: string): FilesystemSpecInput => {
  try {
    return parseVolume(text, process.cwd());
  } catch (error) {
    if (error instanceof UnitError) throw new CliFailure({ class: 'InvalidArgument', desc: error.message });
    throw error;
  }
};

const forwardOf = (text: string): Forward => {
  try {
    // As docker run does it: at every address of the host.
    return { hostAddress: '0.0.0.0', ...parseForward(text) } as Forward;
  } catch (error) {
    if (error instanceof UnitError) throw new CliFailure({ class: 'InvalidArgument', desc: error.message });
    throw error;
  }
};

/** Writes what the program writes until it has ended, and all of that. */
const showOutput = async (context: Context, guest: string, ended: AbortSignal): Promise<void> => {
  const { io } = context;
  for (let offset = 0; ; ) {
    const isLast = ended.aborted;
    const part = (await lastingCall(context, 'query-guest-log', () => ({
      guest,
      stream: 'program',
      offset,
      maxBytes: MAX_PART_BYTES,
    }))) as { readonly text: string; readonly nextOffset: number };
    if (part.text !== '') io.stdout.write(part.text);
    if (part.nextOffset > offset) {
      offset = part.nextOffset;
      continue;
    }
    if (isLast) return;
    await delay(LOOK_MS, undefined, { signal: AbortSignal.any([ended, context.signal]) }).catch(
      () => undefined,
    );
    context.signal.throwIfAborted();
  }
};

const exitCodeOfEnd = ({ lastExit }: GuestView): number => {
  if (lastExit?.exitCode !== undefined) return lastExit.exitCode;
  return lastExit?.signal === undefined ? programCodes.notRun : programCodes.signalled + lastExit.signal;
};

const runToEnd = async (context: Context, guest: string): Promise<number> => {
  const ended = new AbortController();
  const shown = showOutput(context, guest, ended.signal);
  // Its failure is told below; until then it is nobody's unhandled one.
  shown.catch(() => undefined);
  const view = await lastingWait(context, 'guest-wait', { guest, until: 'stopped' });
  ended.abort();
  await shown;
  return exitCodeOfEnd(view);
};

/** Its streams here, if it has a terminal or takes input. Resolves with its exit code. */
const runHere = async (
  context: Context,
  guest: string,
  { terminal, interactive }: Streams,
): Promise<number | 'left'> => {
  if (!terminal && !interactive) return await runToEnd(context, guest);
  const ending = await attachHere(context, { guest, terminal, interactive, fromOffset: 0 }).catch(
    (error: unknown) => {
      // It has ended before it could be attached to.
      if (error instanceof CliFailure && error.wire.class === 'FailedPrecondition') return undefined;
      throw error;
    },
  );
  if (ending === undefined) return await runToEnd(context, guest);
  if (ending === 'left') return ending;
  if (!('error' in ending)) return endOfSession(ending);
  // Nobody could tell the end of the program: the guest has one as well.
  return exitCodeOfEnd(await lastingWait(context, 'guest-wait', { guest, until: 'stopped' }));
};

/** Also after an interrupt, by a signal of its own: the guest is the user's, and they want to be rid of it. */
const remove = async (context: Context, guest: string): Promise<void> => {
  const client = await context.client();
  try {
    const { operation } = await client.call('guest-delete', { guest, force: true });
    await client.call('operation-wait', { operation });
  } catch (error) {
    // The daemon was first.
    if (toFailure(error).wire.class !== 'NotFound') throw error;
  }
};

export const runImage = async (invocation: Invocation, context: Context): Promise<number> => {
  const { flags, positionals } = invocation;
  const name = textOf(flags, 'name') ?? `run-${randomHex(4)}`;
  const streams = { terminal: flags['terminal'] === true, interactive: flags['interactive'] === true };
  // Of this run: a name may be taken again.
  const idempotencyKey = randomHex(8);
  let made = false;
  let left = flags['detach'] === true;
  try {
    if (flags['detach'] !== true) requireTerminal(context, streams);
    await buildWhatIsMissing(context);
    const image = await imageFor(context, String(positionals['IMAGE']));
    const spec = specOf(invocation, image, name);
    const { operation, warnings = [] } = (await lastingCall(context, 'guest-create', () => ({
      ...spec,
      idempotencyKey,
    }))) as { readonly operation: string; readonly warnings?: readonly string[] };
    made = true;
    for (const warning of warnings) context.note(`roost: ${warning}`);
    const started = await lastingWait(context, 'operation-wait', { operation });
    if (started.error) {
      const failure = new CliFailure(started.error);
      context.note(`roost: ${failure.message}`);
      return exitCodeOfRefusal(failure) ?? programCodes.notRun;
    }
    if (flags['detach'] === true) {
      context.print(name);
      return 0;
    }
    const ended = await runHere(context, name, streams);
    left = ended === 'left';
    return ended === 'left' ? 0 : ended;
  } catch (error) {
    // The other codes are those of the program.
    if (!made && error instanceof CliFailure) throw error.withReason('notRun');
    if (error instanceof Interrupted && made && flags['rm'] !== true)
      context.note(
        `roost: guest ${name} runs on; 'roost stop ${name}' stops it, 'roost logs -f ${name}' follows it`,
      );
    throw error;
  } finally {
    if (made && flags['rm'] === true && !left) await remove(context, name);
  }
};

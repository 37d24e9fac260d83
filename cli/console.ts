/** `roost console`: the terminal becomes that of the guest. */
import type { CommandInput } from '../protocol/commands.ts';
import { carryByteSession, exitCodeOf } from './byte-session.ts';
import { CliFailure } from './failure.ts';
import type { Context } from './io.ts';
import type { Invocation } from './verb.ts';

const DEFAULT_REPLAY_BYTES = 4096;
const MAX_REPLAY_BYTES = 65_536;

/** A daemon of before consoles came in frames knows no `framed`. */
const inWords = (error: unknown): unknown => {
  if (!(error instanceof CliFailure) || error.wire.class !== 'InvalidArgument') return error;
  if (!error.wire.desc.includes('framed')) return error;
  const told = {
    class: 'Unsupported',
    desc: 'This roostd is older than this roost: its consoles are of another form',
    hint: 'Restart roostd in the version of this roost; guests go on meanwhile.',
  } as const;
  return new CliFailure(told, undefined, error);
};

export const attachConsole = async (invocation: Invocation, context: Context): Promise<number> => {
  const { io, note, signal } = context;
  const guest = String(invocation.positionals['NAME']);
  const replay = Number(invocation.flags['replay'] ?? DEFAULT_REPLAY_BYTES);
  const args: CommandInput<'guest-console'> = {
    guest,
    framed: true,
    replayBytes: Math.min(replay, MAX_REPLAY_BYTES),
  };
  const client = await context.client();
  const socket = await client.attach('guest-console', args, { signal }).catch((error: unknown) => {
    throw inWords(error);
  });
  const terminal = io.stdin.isTTY === true;
  const ending = await carryByteSession(socket, io, {
    of: 'console',
    interactive: true,
    terminal,
    mayLeave: true,
    onOpen: () => {
      if (terminal) note(`Console of ${guest}. Ctrl-] leaves; the guest goes on.`);
    },
  });
  // The cursor stands wherever the guest left it.
  if (terminal) note('');
  if (ending === 'left') {
    if (terminal) note(`Left the console of ${guest}.`);
    return 0;
  }
  const code = exitCodeOf(ending);
  if (terminal) note(`The console of ${guest} closed: the guest ended.`);
  return code;
};

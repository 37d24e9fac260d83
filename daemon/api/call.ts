/** What a handler is given besides the arguments: who calls, and the session they call from. */
import type { Duplex } from 'node:stream';
import type { CommandArguments, CommandName, CommandReturn } from '../../protocol/commands.ts';
import type { Asker } from '../guests/refusals.ts';
import type { EventFilter } from '../inventory/event-table.ts';

/** The parts of a session that commands of nature `session` work on. */
export interface CallSession {
  negotiate(): void;
  subscribe(filter: EventFilter, since: number | undefined): void;
  /** After the reply the connection carries the bytes of `stream`, both ways, until either side closes. */
  becomeStream(stream: Duplex): void;
}

export interface Call extends Asker {
  /** Aborts when the connection closes or the daemon stops. */
  readonly signal: AbortSignal;
  readonly session: CallSession;
}

export type Handler<N extends CommandName> = (
  args: CommandArguments<N>,
  call: Call,
) => CommandReturn<N> | Promise<CommandReturn<N>>;

export type Handlers = { readonly [N in CommandName]: Handler<N> };

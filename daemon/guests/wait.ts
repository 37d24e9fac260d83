/** guest-wait: until a guest is ready or in a state, or can get there no more. */
import { deferred, waitOrAbort } from '../../lib/abort.ts';
import type { GuestWait } from '../../protocol/commands/guest.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestView } from '../../protocol/guest.ts';
import type { Guest } from './guest.ts';

/** Operations after which a guest that has no process now may have one. */
const STARTING: ReadonlySet<string> = new Set([
  'guest-create',
  'guest-clone',
  'guest-start',
  'template-create',
]);

export interface Waited {
  readonly view: Pick<GuestView, 'state' | 'ready' | 'reason' | 'restarts' | 'name'>;
  /** Kinds of the operations that are not at their end. */
  readonly unfinished: readonly string[];
}

/** Pure: whether it is so, may still come to be so, or will not without somebody's help. */
export const judge = ({ view, unfinished }: Waited, until: GuestWait): 'reached' | 'waiting' | 'hopeless' => {
  const { state, ready, restarts } = view;
  const ended = state === 'stopped' || state === 'failed';
  if (until === 'stopped')
    return ended && unfinished.every((kind) => kind === 'guest-delete') ? 'reached' : 'waiting';
  if (until === 'ready' ? state === 'running' && ready !== undefined : state === until) return 'reached';
  const mayStart = restarts.nextAt !== undefined || unfinished.some((kind) => STARTING.has(kind));
  return ended && !mayStart ? 'hopeless' : 'waiting';
};

const hopeless = ({ name, state, reason }: Waited['view'], until: GuestWait): RoostError =>
  new RoostError(
    'FailedPrecondition',
    `Guest ${name} is ${state}${reason === undefined ? '' : ` (${reason})`}, and will not be ${until} unless it is started`,
    { data: { guest: name, state }, hint: 'Start it; `roost logs NAME` shows how it ended.' },
  );

/** For a wait that its own deadline ended. */
export const notInTime = (view: GuestView, until: GuestWait, timeoutMs: number): RoostError =>
  new RoostError(
    'DeadlineExceeded',
    `Guest ${view.name} is ${view.state}${until === 'ready' && view.state === 'running' ? ', but has not proven to be up' : ''}; waited ${timeoutMs} ms for it to be ${until}`,
    { data: { guest: view.name, state: view.state, until, timeoutMs }, hint: hintFor(view, until) },
  );

/** What a guest can prove itself by, where that is not obvious. */
const hintFor = (view: GuestView, until: GuestWait): string => {
  if (until !== 'ready' || view.state !== 'running')
    return 'Wait again, or look at it with `roost show NAME`.';
  if (view.nics.length === 0) return 'It has no NIC: only a guest agent in it could tell.';
  return 'It proves itself by its guest agent, by answering at its address, or on a network of kind user by SSH through a forwarded port; `roost logs NAME` shows how far it has come.';
};

/** Errors: NotFound when it is deleted meanwhile, FailedPrecondition; the signal's reason. */
export const waitForGuest = async (
  guest: Guest,
  until: GuestWait,
  signal: AbortSignal,
): Promise<GuestView> => {
  for (;;) {
    if (guest.removed && until === 'stopped') return guest.view;
    if (guest.removed) throw new RoostError('NotFound', `Guest ${guest.name} is gone: ${guest.removal.why}`);
    const { view } = guest;
    const unfinished = guest.unfinished.map(({ kind }) => kind);
    const verdict = judge({ view, unfinished }, until);
    if (verdict === 'reached') return view;
    if (verdict === 'hopeless') throw hopeless(view, until);
    const changed = deferred<void>();
    const forget = guest.onChange(() => changed.resolve());
    try {
      await waitOrAbort(changed.promise, signal);
    } finally {
      forget();
    }
  }
};

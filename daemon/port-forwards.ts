/** Ports of the host that guests get: none twice. Decided in the transaction that records them. */
import { RoostError } from '../protocol/errors.ts';
import type { PortForward } from '../protocol/net-port.ts';

/** Where ports are chosen from: below those that the kernel gives to connections (ip_local_port_range). */
const FIRST_CHOICE = 20_000;
const LAST_CHOICE = 32_767;

/** A forward and whose it is. */
export interface KeptForward extends PortForward {
  readonly guest: string;
}

const EVERYWHERE = '0.0.0.0';

const collide = (one: PortForward, other: PortForward): boolean =>
  one.protocol === other.protocol &&
  one.hostPort === other.hostPort &&
  (one.hostAddress === other.hostAddress ||
    one.hostAddress === EVERYWHERE ||
    other.hostAddress === EVERYWHERE);

const chosen = (
  forward: PortForward,
  kept: readonly PortForward[],
  busy: ReadonlySet<number>,
): PortForward => {
  for (let hostPort = FIRST_CHOICE; hostPort <= LAST_CHOICE; hostPort += 1) {
    const candidate = { ...forward, hostPort };
    if (!busy.has(hostPort) && !kept.some((other) => collide(candidate, other))) return candidate;
  }
  throw new RoostError(
    'ResourceExhausted',
    `No port of the host from ${FIRST_CHOICE} to ${LAST_CHOICE} is free`,
    { hint: 'Name a port of the host.' },
  );
};

/**
 * Forwards with every port settled: a named one as it is, 0 as a free one.
 *
 * @param kept those of all other guests
 * @param busy ports in use on the host, which are not chosen; a named one may be in use until the guest starts
 * Errors: AlreadyExists, ResourceExhausted.
 */
export const settleForwards = (
  guest: string,
  forwards: readonly PortForward[],
  kept: readonly KeptForward[],
  busy: ReadonlySet<number>,
): readonly PortForward[] => {
  const settled: KeptForward[] = [];
  for (const forward of forwards) {
    const all = [...kept, ...settled];
    const one = forward.hostPort === 0 ? chosen(forward, all, busy) : forward;
    const other = all.find((each) => collide(one, each));
    if (other)
      throw new RoostError(
        'AlreadyExists',
        `Port ${one.hostPort}/${one.protocol} of ${one.hostAddress} is kept for guest ${other.guest}`,
        {
          data: { ...one, guest: other.guest },
          hint: 'Choose another port of the host, or 0 to get a free one.',
        },
      );
    settled.push({ ...one, guest });
  }
  return settled.map(({ guest: _guest, ...forward }) => forward);
};

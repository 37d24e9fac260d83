/**
 * `roost ssh`: the system's own ssh, to where the guest is found. Rules it keeps: the address is one that the host
 * vouches for where there is any; the guest's host key is kept under its id, so that a guest made anew under an old name
 * is a new one, and a known guest at another address is the same one.
 */
import { mkdir } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import type { CommandReturn } from '../protocol/commands.ts';
import type { GuestView } from '../protocol/guest.ts';
import { CliFailure, usageFailure } from './failure.ts';
import type { Context, Io } from './io.ts';
import { lastingWait } from './lasting.ts';
import type { Invocation } from './verb.ts';

export const SSH_PORT = 22;
const DEFAULT_WAIT_MS = 120_000;

/** Label of a guest that names the user to log in as. */
export const USER_LABEL = 'ssh-user';

type Addresses = Pick<CommandReturn<'query-guest-addresses'>, 'name' | 'nics'>;

export interface SshTarget {
  readonly host: string;
  readonly port: number;
}

/** Loopback and link-local addresses lead elsewhere than to the guest. */
const leadsThere = (address: string): boolean =>
  !address.startsWith('127.') &&
  !address.startsWith('169.254.') &&
  address !== '::1' &&
  !/^fe[89ab]/i.test(address);

/** Where a port of the guest is reached; undefined when no address of it is known. Each NIC's best evidence is first. */
export const sshTarget = ({ nics }: Addresses, guestPort: number): SshTarget | undefined => {
  const all = nics.flatMap(({ addresses }) => addresses);
  const forward = all.find((each) => each.guestPort === guestPort && each.protocol === 'tcp');
  const direct = all.filter(({ address, source }) => source !== 'forward' && leadsThere(address));
  const best = direct.find(({ source }) => source !== 'agent' && source !== 'reserved') ?? direct[0];
  const vouched = best !== undefined && best.source !== 'agent';
  if (forward?.port !== undefined && !vouched)
    return { host: forward.address === '0.0.0.0' ? '127.0.0.1' : forward.address, port: forward.port };
  return best && { host: best.address, port: guestPort };
};

export interface SshOptions {
  readonly target: SshTarget;
  readonly guestId: string;
  readonly knownHostsFile: string;
  readonly user: string | undefined;
  readonly identity: string | undefined;
  /** Tries of a guest that is up while its server is yet to come; ssh makes one a second. */
  readonly attempts: number;
  readonly command: readonly string[];
}

/** Command line of ssh (ssh(1), ssh_config(5)). */
export const sshArguments = (options: SshOptions): readonly [string, ...string[]] =>
  [
    'ssh',
    ['-o', `HostKeyAlias=${options.guestId}`],
    ['-o', `UserKnownHostsFile=${options.knownHostsFile}`],
    ['-o', 'StrictHostKeyChecking=accept-new'],
    ['-o', 'CheckHostIP=no'],
    ...(options.attempts > 1 ? [['-o', `ConnectionAttempts=${options.attempts}`]] : []),
    ...(options.identity === undefined ? [] : [['-i', options.identity]]),
    ...(options.user === undefined ? [] : [['-l', options.user]]),
    ['-p', String(options.target.port)],
    ['--', options.target.host],
    options.command,
  ].flat() as [string, ...string[]];

/** Places of the XDG base directory specification; relative ones are ignored there too. */
const cacheDirectory = ({ env }: Pick<Io, 'env'>): string => {
  const named = env['XDG_CACHE_HOME'];
  if (named !== undefined && isAbsolute(named)) return join(named, 'roost');
  const home = env['HOME'];
  if (home !== undefined && isAbsolute(home)) return join(home, '.cache', 'roost');
  throw usageFailure(
    'There is no place to keep the host keys of guests',
    'Set HOME, or XDG_CACHE_HOME, to an absolute path.',
  );
};

const knownHosts = async (io: Io, guestId: string): Promise<string> => {
  const directory = join(cacheDirectory(io), 'known_hosts');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  return join(directory, guestId);
};

/** Waits until the guest is ready; one that has not proven it in time is tried all the same. */
const waitForGuest = async (guest: string, timeoutMs: number, context: Context): Promise<void> => {
  try {
    await lastingWait(context, 'guest-wait', { guest, until: 'ready', timeoutMs });
  } catch (error) {
    if (!(error instanceof CliFailure) || error.wire.class !== 'DeadlineExceeded') throw error;
    context.note(`${guest} has not proven to be up; trying all the same`);
  }
};

const userOf = (view: GuestView): string | undefined => view.labels[USER_LABEL] ?? view.cloudInit?.user;

const numberOf = (flag: unknown, fallback: number): number => (typeof flag === 'number' ? flag : fallback);
const textOf = (flag: unknown): string | undefined => (typeof flag === 'string' ? flag : undefined);

export const runSsh = async ({ positionals, flags }: Invocation, context: Context): Promise<number> => {
  const { signal } = context;
  const guest = String(positionals['NAME']);
  const command = positionals['COMMAND'];
  const port = numberOf(flags['port'], SSH_PORT);
  const client = await context.client();
  const deadline = context.io.now() + numberOf(flags['timeout'], DEFAULT_WAIT_MS);
  if (context.wait) await waitForGuest(guest, deadline - context.io.now(), context);
  const [view, addresses] = await Promise.all([
    client.call('query-guest', { guest }, { signal }),
    client.call('query-guest-addresses', { guest }, { signal }),
  ]);
  const target = sshTarget(addresses, port);
  if (target === undefined)
    throw new CliFailure({
      class: 'FailedPrecondition',
      desc: `No address of ${view.name} is known`,
      hint: `Attach it to a network; on one of kind user forward a port to its port ${port}.`,
    });
  client.close();
  return await context.io.runProgram(
    sshArguments({
      target,
      guestId: view.id,
      knownHostsFile: await knownHosts(context.io, view.id),
      user: textOf(flags['user']) ?? userOf(view),
      identity: textOf(flags['identity']),
      attempts: context.wait ? Math.max(1, Math.ceil((deadline - context.io.now()) / 1000)) : 1,
      command: Array.isArray(command) ? (command as readonly string[]) : [],
    }),
    signal,
  );
};

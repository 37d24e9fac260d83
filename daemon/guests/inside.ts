/** A guest that boots a container image, seen from inside: what its init is told, and that it ends with its program. */
import type { GuestSetup } from '../../drivers/driver.ts';
import { DeadlineError, deadline } from '../../lib/abort.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { NetworkKind } from '../../protocol/network.ts';
import type { ProgramEnd, StoredProgram } from '../inventory/guest-table.ts';
import type { Guest } from './guest.ts';

/** From the first instruction to the init's answer it takes a second or two; each try has longer than the one before. */
const FIRST_BOOT_TIMEOUT_MS = 10_000;
/** How long the init may take to begin with the end. */
const POWER_OFF_TIMEOUT_MS = 10_000;

/** QEMU's user-mode network (qemu(1), "-netdev user"): the guest's address there, and who answers. */
const userNetwork = { address: '10.0.2.15/24', gateway: '10.0.2.2', nameserver: '10.0.2.3' } as const;

interface Place {
  readonly mac: string;
  readonly ipv4?: string | undefined;
  readonly kind: NetworkKind;
  readonly name: string;
  readonly subnet?: string | undefined;
  readonly gateway?: string | undefined;
}

const linkOf = ({ mac, ipv4, kind, subnet, gateway }: Place): GuestSetup['links'][number] => {
  if (kind === 'user') return { mac, addresses: [userNetwork.address], gateway: userNetwork.gateway };
  if (ipv4 === undefined || subnet === undefined) return { mac, addresses: [] };
  return {
    mac,
    addresses: [`${ipv4}/${subnet.slice(subnet.indexOf('/') + 1)}`],
    // Of the others no host passes on what goes elsewhere.
    ...(kind === 'nat' && gateway !== undefined ? { gateway } : {}),
  };
};

/** Of several NICs the first has the way out. Pure. */
export const setupOf = (
  { id, name }: { readonly id: string; readonly name: string },
  program: StoredProgram,
  places: readonly Place[],
): GuestSetup => {
  const links = places.map(linkOf);
  const wayOut = links.findIndex(({ gateway }) => gateway !== undefined);
  const nameservers = places.flatMap(({ kind, gateway }) =>
    kind === 'user' ? [userNetwork.nameserver] : gateway === undefined ? [] : [gateway],
  );
  const own = places.find(({ ipv4 }) => ipv4 !== undefined)?.ipv4 ?? '127.0.1.1';
  const { argv, environment, workingDirectory, user } = program;
  return {
    hostname: name,
    machineId: id.replaceAll('-', ''),
    links: links.map(({ gateway, ...link }, index) => ({
      ...link,
      ...(index === wayOut && gateway !== undefined ? { gateway } : {}),
    })),
    resolver: {
      nameservers: [...new Set(nameservers)],
      search: places.filter(({ kind }) => kind !== 'user').map(({ name: network }) => network),
    },
    hosts: [`${own} ${name}`],
    program: {
      argv,
      environment: [...environment, ...(environment.some(isHostname) ? [] : [`HOSTNAME=${name}`])],
      ...(workingDirectory === undefined ? {} : { workingDirectory }),
      ...(user === undefined ? {} : { user }),
    },
  };
};

const isHostname = (variable: string): boolean => variable.startsWith('HOSTNAME=');

/**
 * Waits until the init is there and has started the program; nothing for other guests. Errors: DeadlineExceeded when it
 * does not come up, FailedPrecondition when the program cannot be run.
 * `tries`: which try this is, from 1.
 */
export const setUpInside = async (guest: Guest, tries: number, signal: AbortSignal): Promise<void> => {
  const { program, nics } = guest.record.spec;
  const { handle, house } = guest;
  if (!program || !handle?.init) return;
  const places = nics.map(({ mac, ipv4, network }) => ({ ...house.networks.byId(network), mac, ipv4 }));
  const ended = new AbortController();
  void handle.ended.then(() => ended.abort(endedEarly(guest)));
  const timeoutMs = FIRST_BOOT_TIMEOUT_MS * 3 ** (tries - 1);
  using limit = deadline(timeoutMs, AbortSignal.any([signal, ended.signal]));
  try {
    await handle.init.setUp(setupOf(guest, program, places), limit.signal);
  } catch (error) {
    if (!(limit.signal.reason instanceof DeadlineError)) throw error;
    throw new RoostError('DeadlineExceeded', `Guest ${guest.name} has not come up in ${timeoutMs / 1000} s`, {
      cause: error,
      data: { guest: guest.name },
      hint: 'Look at what it wrote while it booted: roost logs --console.',
    });
  }
  guest.readiness.prove({ kind: 'agent', at: house.clock.now() });
};

const endedEarly = ({ name }: Guest): RoostError =>
  new RoostError('HostError', `Guest ${name} ended before its program was started`, {
    data: { guest: name },
    hint: 'Look at what it wrote while it booted: roost logs --console.',
  });

/** The program has ended: written down, and the guest is asked to end as well; one that does not is stopped by others. */
export const endWithProgram = (guest: Guest, { exitCode, signal }: ProgramEnd): void => {
  const { process } = guest.status;
  if (!process || process.programEnd) return;
  const programEnd = {
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(signal === undefined ? {} : { signal }),
  };
  guest.setStatus({ process: { ...process, programEnd } });
  const { house } = guest;
  guest.agent
    .use((agent, limit) => agent.shutdown(limit), { signal: house.stopping, timeoutMs: POWER_OFF_TIMEOUT_MS })
    .catch((err: unknown) => {
      if (!house.stopping.aborted)
        house.log.warn({ err, guest: guest.name }, 'the guest outlives its program');
    });
};

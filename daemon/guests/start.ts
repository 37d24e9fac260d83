/**
 * guest-start: lease the volumes, attach the ports, launch the process, let it run. A fork's first start begins with the
 * memory of its template; where that is not to be had it boots, as it does ever after.
 */
import type { GuestPlace } from '../../drivers/driver.ts';
import { enter } from '../../lib/account.ts';
import type { Work } from '../../lib/work.ts';
import { isRoostError, RoostError, toRoostError } from '../../protocol/errors.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { cleanUp } from '../operations/clean-up.ts';
import type { Step } from '../operations/steps.ts';
import { record } from './creation.ts';
import { goesWithMemoryOf, isKept } from './forks.ts';
import {
  attachPorts,
  clearForAnother,
  closeAll,
  findProcess,
  type Gathered,
  isOwn,
  leaseVolumes,
  takeOver,
} from './gather.ts';
import type { Guest } from './guest.ts';
import { isStart } from './guest-status.ts';
import { machineSettings } from './guest-view.ts';
import { setUpInside } from './inside.ts';
import { isUnheard } from './inside-system.ts';
import { launchOf, portSpecs, runObjects, volumeSpecs } from './launch-of.ts';
import type { Procedure } from './perform.ts';
import { placeOf } from './place.ts';

/**
 * The template whose memory it begins with: once, because its disks go on from then. That is asked of the disks as well,
 * for an inventory may be older than they are.
 */
const templateToFork = async (guest: Guest): Promise<GuestPlace | undefined> => {
  const { house, record, status } = guest;
  const { forkOf } = record.spec;
  if (forkOf === undefined || status.forkedAt !== undefined) return undefined;
  for (const volume of volumeSpecs(guest))
    if (!volume.readOnly && !(await house.pool.isPristine(volume))) return undefined;
  const template = house.inventory.guests.byId(forkOf);
  return template && goesWithMemoryOf(record.spec, template.spec) ? placeOf(house, template) : undefined;
};

const makeProcess = async (
  guest: Guest,
  operation: OperationRecord,
  gathered: Gathered,
  { forkOf, signal }: { readonly forkOf: GuestPlace | undefined; readonly signal: AbortSignal },
): Promise<void> => {
  const { seed, forkable, receives } = gathered;
  const launched = launchOf(
    guest,
    gathered.sources,
    gathered.ports.map((attached) => attached.port),
    {
      ...(seed === undefined ? {} : { seed }),
      ...(forkable ? { forkable } : {}),
      ...(receives ? { receives } : {}),
      ...(forkOf === undefined ? {} : { forkOf }),
    },
  );
  const descriptors = new Map(
    gathered.ports.flatMap(({ port, descriptor }) =>
      port.kind === 'tap' && descriptor !== undefined ? [[port.link, descriptor] as const] : [],
    ),
  );
  const now = guest.house.clock.now();
  guest.setStatus({
    cursor: 0,
    applied: {
      ...machineSettings(guest.record.spec),
      launchedBy: operation.id,
      ...(forkOf === undefined ? {} : { forked: true, renewed: false }),
    },
    ...(forkOf === undefined ? {} : { forkedAt: now }),
  });
  try {
    guest.take(await guest.driver.launch(launched, { signal, descriptors, observe: guest.observe }));
    for (const object of runObjects(guest)) enter({ kind: 'made', object: hostObjectKey(object) });
  } finally {
    await closeAll(gathered.ports);
  }
};

const notForked = ({ name }: Guest): RoostError =>
  new RoostError('FailedPrecondition', `Guest ${name} cannot begin with the memory of its template`, {
    data: { guest: name },
    hint: 'The template has lost it, or the guest has begun with it before.',
  });

/** `before`: the steps that make what the process needs. */
const launch = (
  guest: Guest,
  operation: OperationRecord,
  gathered: Gathered,
  before: readonly Step[],
): Step => ({
  name: 'launch',
  do: async (work) => {
    const { signal } = work;
    if (guest.handle) return;
    // An earlier daemon has launched it for this very start.
    if (gathered.found !== 'none') return await takeOver(guest, signal);
    const paused = operation.arguments['paused'] === true;
    const forkOf = gathered.forkable || paused ? undefined : await templateToFork(guest);
    if (gathered.forkOnly && forkOf === undefined) throw notForked(guest);
    try {
      return await makeProcess(guest, operation, gathered, { forkOf, signal });
    } catch (error) {
      if (forkOf === undefined || gathered.forkOnly || signal.aborted) throw error;
      enter({ kind: 'note', text: `it could not be forked, and boots: ${toRoostError(error).message}` });
    }
    await clearForAnother(guest, gathered);
    for (const step of before) await step.do(work);
    await makeProcess(guest, operation, gathered, { forkOf: undefined, signal });
  },
  undo: async () => {
    if (!isOwn(guest, operation)) return;
    const { handle } = guest;
    await cleanUp(guest.house, `the end of guest ${guest.name}'s process`, (signal) =>
      handle ? handle.kill(signal) : guest.driver.destroy(guest.place, signal),
    );
    guest.handle = undefined;
    await handle?.release();
  },
});

const resume = (guest: Guest, gathered: Gathered, paused: boolean): Step => ({
  name: 'resume',
  do: async ({ signal }) => {
    await Promise.all(gathered.guards);
    const { handle } = guest;
    if (!handle)
      throw new RoostError('HostError', `The process of guest ${guest.name} is gone`, {
        hint: 'Look at `roost logs --process`.',
      });
    if (paused) guest.setStatus({ state: 'paused', reason: 'user' });
    // One that is kept already never goes on: an earlier daemon had come as far.
    else if (!(gathered.forkable && (await isKept(guest)))) {
      if (isUnheard(guest)) await handle.forks?.setLinks(false, signal);
      await handle.resume(signal);
      if (guest.handle === handle && guest.status.state === 'starting')
        guest.setStatus({ state: 'running', reason: undefined });
    }
  },
});

/** A kernel that stands still while it boots does so before it has done anything: then it is booted again. */
const BOOT_TRIES = 3;

/** Does something inside of a guest that boots; `boot` are the steps that make a process of it, ready to run. */
const inside = async (
  guest: Guest,
  gathered: Gathered,
  boot: readonly Step[],
  { work, act }: { readonly work: Work; readonly act: (tries: number) => Promise<void> },
): Promise<void> => {
  for (let tries = 1; ; tries += 1) {
    const forked = guest.status.applied?.forked === true;
    try {
      return await act(tries);
    } catch (error) {
      work.signal.throwIfAborted();
      if (gathered.forkOnly) throw error;
      const again = forked || (tries < BOOT_TRIES && isRoostError(error, 'DeadlineExceeded'));
      if (!again) throw error;
      enter({ kind: 'note', text: `${toRoostError(error).message}; it is booted ${forked ? '' : 'again'}` });
    }
    const { handle } = guest;
    await handle?.kill(work.signal);
    await handle?.ended;
    await clearForAnother(guest, gathered);
    for (const step of boot) await step.do(work);
  }
};

/** What begins as a start: the steps to a process that runs, and what becomes of the guest when they fail. */
export interface Beginning {
  readonly withdraw: () => void;
  readonly boot: readonly Step[];
  /** The first of these, up to a process that stands still. */
  readonly launch: readonly Step[];
  readonly ended: (ended: OperationRecord) => Promise<void>;
  /** Tries it inside, and boots the guest again where it stands still. */
  readonly inside: (work: Work, act: (tries: number) => Promise<void>) => Promise<void>;
}

export const begin = (
  guest: Guest,
  operation: OperationRecord,
  {
    forkable = false,
    forkOnly = false,
    receives = false,
  }: Partial<Pick<Gathered, 'forkable' | 'forkOnly' | 'receives'>> = {},
): Beginning => {
  const gathered: Gathered = {
    sources: [],
    seed: undefined,
    ports: [],
    guards: [],
    forkable,
    forkOnly,
    receives,
    found: 'none',
  };
  const paused = operation.arguments['paused'] === true;
  const before = [leaseVolumes(guest, operation, gathered), attachPorts(guest, gathered)];
  const launched = [...before, launch(guest, operation, gathered, before)];
  const boot = [...launched, resume(guest, gathered, paused)];
  return {
    boot,
    launch: launched,
    inside: (work, act) => inside(guest, gathered, boot, { work, act }),
    withdraw: () => {
      if (
        !guest.isLive() &&
        guest.unfinished.every((each) => each.id === operation.id || !isStart(each.kind))
      )
        guest.house.inventory.ledger.release({ kind: 'guest', id: guest.id }, 'run');
    },
    ended: (ended) => wrapUpFailure(guest, operation, gathered, ended),
  };
};

/** What is told of a guest whose start did not succeed. */
const wrapUpFailure = async (
  guest: Guest,
  operation: OperationRecord,
  gathered: Gathered,
  ended: OperationRecord,
): Promise<void> => {
  if (ended.state === 'succeeded' || guest.removed) return;
  // Without a look at the host where there was one: whoever is told that it failed sees it failed.
  const left = gathered.left ?? (await findProcess(guest, operation));
  if (left === 'other') return;
  if (left === 'own') {
    guest.setStatus({
      state: 'unknown',
      reason: 'its start was taken back, and its process does not end',
    });
    return;
  }
  const cancelled = ended.state === 'cancelled';
  const reason = cancelled ? undefined : ended.error?.desc;
  const died = ended.error?.class === 'HostError';
  guest.setStatus({
    state: cancelled ? 'stopped' : 'failed',
    reason,
    ...(died
      ? {
          lastExit: {
            at: guest.house.clock.now(),
            cause: 'crashed',
            ...(reason === undefined ? {} : { detail: reason }),
          },
        }
      : {}),
  });
  if (!cancelled && operation.actor === 'policy:restart')
    guest.restarts.afterEnd({ cause: 'crashed', ranMs: 0 });
};

/** Its networks know one that has waited by no name yet. */
const announce = (guest: Guest): Step => ({
  name: 'announce',
  do: async ({ signal }) => {
    for (const { network, port } of portSpecs(guest))
      await guest.house.networks.announce(network, port, signal);
  },
});

export const start = (guest: Guest, operation: OperationRecord): Procedure => {
  const { boot, inside: tryInside, withdraw, ended } = begin(guest, operation);
  const program: Step = {
    name: 'program',
    do: (work) => tryInside(work, (tries) => setUpInside(guest, tries, work.signal)),
  };
  const waited = operation.arguments['waited'] === true;
  const { program: runs, forkOf } = guest.record.spec;
  const isSetUp = (runs !== undefined || forkOf !== undefined) && operation.arguments['paused'] !== true;
  return {
    steps: isSetUp
      ? waited
        ? [record(guest), ...boot, announce(guest), program]
        : [...boot, program]
      : boot,
    finish: () => ({ guest: guest.id }),
    withdraw,
    after: ended,
  };
};

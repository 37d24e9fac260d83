/**
 * guest-delete: end the process if that was asked for, then remove everything, the record last. With force it goes on
 * past what cannot be ended or removed, says so in its result, and leaves the rows of that in the ledger.
 */
import { rm } from 'node:fs/promises';
import { enter } from '../../lib/account.ts';
import { isRoostError, RoostError, toRoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import { cleanUp } from '../operations/clean-up.ts';
import type { Step } from '../operations/steps.ts';
import { type Remains, takeAway } from './free-run.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';
import { endProcess, keepRunning } from './stop.ts';
import { pruneUnder } from './template-rounds.ts';

/** What a forced operation goes on without, in words; filled by its steps. */
export type GivenUp = string[];

/**
 * Ends the process and wraps its run up. A process that the kernel does not let end, in state D or frozen, is given up
 * after a time, as is one of which nothing can be told. Resolves with whether it is gone.
 */
export const endOrGiveUp = async (guest: Guest, givenUp: GivenUp): Promise<boolean> => {
  const pid = guest.handle?.process.pid ?? guest.status.process?.pid;
  try {
    const end = await cleanUp(guest.house, `the end of guest ${guest.name}'s process`, (signal) =>
      endProcess(guest, signal),
    );
    await guest.wrapUp(end);
    return true;
  } catch (error) {
    if (guest.house.stopping.aborted) throw error;
    if (isRoostError(error, 'NotFound')) {
      await guest.wrapUp({ cause: 'unknown', at: guest.house.clock.now() });
      return true;
    }
    const which = pid === undefined ? 'its process' : `its process, pid ${pid}`;
    const text = `${which}: ${toRoostError(error).message}`;
    enter({ kind: 'note', text: `gave up on ${text}` });
    givenUp.push(text);
    return false;
  }
};

const end = (guest: Guest, force: boolean, givenUp: GivenUp): Step => ({
  name: 'end',
  do: async ({ signal }) => {
    guest.restarts.silence();
    if (guest.record.spec.template) await guest.house.waiting.endOf(guest.id, signal);
    if (!guest.isLive()) return;
    if (!force)
      throw new RoostError('FailedPrecondition', `Guest ${guest.name} is ${guest.status.state}`, {
        data: { guest: guest.name, state: guest.status.state },
        hint: 'Stop it first, or delete it with force.',
      });
    signal.throwIfAborted();
    guest.setStatus({ state: 'stopping', reason: undefined });
    await endOrGiveUp(guest, givenUp);
  },
});

/** All that exists as long as the guest does, the disks before their directory. */
const existenceRemains = (guest: Guest): readonly Remains[] => {
  const { pool } = guest.house;
  const { runDirectory, stateDirectory } = guest.place;
  const removeDirectory = (path: string) => () => rm(path, { recursive: true, force: true });
  const root: Remains = { what: 'its root', objects: [], remove: () => pool.removeRoot(guest.id) };
  return [
    ...(guest.record.spec.boot.kind === 'root' ? [root] : []),
    ...guest.record.spec.disks.map(
      ({ name }): Remains => ({
        what: `disk ${name}`,
        objects: [],
        remove: () => pool.deleteVolume({ guest: guest.id, name }),
      }),
    ),
    {
      what: `its place in pool ${pool.name}`,
      objects: pool.plan(guest.id, []),
      remove: () => pool.removeGuest(guest.id),
    },
    { what: runDirectory, objects: [], remove: removeDirectory(runDirectory) },
    {
      what: stateDirectory,
      objects: [{ kind: 'directory', name: stateDirectory }],
      remove: removeDirectory(stateDirectory),
    },
  ];
};

const remove = (guest: Guest, force: boolean, givenUp: GivenUp): Step => ({
  name: 'remove',
  do: async () => {
    const left = [...(await guest.freeRun()), ...(await takeAway(guest, existenceRemains(guest)))];
    if (left.length > 0 && !force)
      throw new RoostError('HostError', `Guest ${guest.name} could not all be removed: ${left.join('; ')}`, {
        data: { guest: guest.name, left },
        hint: 'Mend what it names and delete the guest again, or delete it with force, which goes on without.',
      });
    givenUp.push(...left);
  },
});

export const deletion = (guest: Guest, operation: OperationRecord): Procedure => {
  const { inventory } = guest.house;
  const force = operation.arguments['force'] === true;
  const givenUp: GivenUp = [];
  return {
    steps: [end(guest, force, givenUp), remove(guest, force, givenUp)],
    cancellable: false,
    finish: (state) => {
      if (state !== 'succeeded') return undefined;
      inventory.guests.delete(guest.id);
      // The rows of what was given up stay: the host has it still.
      if (givenUp.length === 0) inventory.ledger.release({ kind: 'guest', id: guest.id });
      guest.tell({
        event: 'GUEST_DELETED',
        data: { guest: guest.id, name: guest.name, actor: operation.actor },
      });
      return { guest: guest.id, ...(givenUp.length === 0 ? {} : { gaveUpOn: givenUp }) };
    },
    withdraw: () => keepRunning(guest, operation),
    after: (ended) => {
      if (ended.state !== 'succeeded') return;
      guest.remove();
      pruneUnder(guest);
    },
  };
};

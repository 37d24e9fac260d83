/**
 * guest-reset-state: puts a guest of which nobody knows any more where it stands into a stated state. It looks at the
 * facts first: a guest whose process lives is not said to be stopped, unless somebody insists; then the process is ended,
 * or, where the kernel does not let it end, abandoned by name.
 */
import { RoostError } from '../../protocol/errors.ts';
import type { OperationRecord } from '../inventory/operation-table.ts';
import type { Step } from '../operations/steps.ts';
import { endOrGiveUp, type GivenUp } from './deletion.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';

const refuseAlive = (guest: Guest, probe: 'alive' | 'unknown'): RoostError => {
  const pid = guest.handle?.process.pid ?? guest.status.process?.pid;
  const process = pid === undefined ? 'process' : `process, pid ${pid},`;
  return new RoostError(
    'FailedPrecondition',
    probe === 'alive'
      ? `The ${process} of guest ${guest.name} lives`
      : `It cannot be told whether the ${process} of guest ${guest.name} lives`,
    {
      data: { guest: guest.name, probe, ...(pid === undefined ? {} : { pid }) },
      hint: 'Stop it with force, or insist: then the process is ended, or abandoned if it does not end.',
    },
  );
};

const settleFacts = (guest: Guest, force: boolean, givenUp: GivenUp): Step => ({
  name: 'facts',
  do: async () => {
    guest.restarts.silence();
    const probe = await guest.driver.probe(guest.place);
    if (probe !== 'gone') {
      if (!force) throw refuseAlive(guest, probe);
      await endOrGiveUp(guest, givenUp);
    }
    givenUp.push(...(await guest.freeRun()));
  },
});

export const resetState = (guest: Guest, operation: OperationRecord): Procedure => {
  const to = operation.arguments['to'] === 'failed' ? 'failed' : 'stopped';
  const givenUp: GivenUp = [];
  return {
    steps: [
      settleFacts(guest, operation.arguments['force'] === true, givenUp),
      {
        name: 'state',
        do: () => {
          // A stop that was cancelled for this has set it to running again.
          guest.setTarget('stopped', operation.actor);
          guest.setStatus({
            state: to,
            reason: to === 'failed' ? `set by ${operation.actor}` : undefined,
            restartAt: undefined,
          });
        },
      },
    ],
    finish: (state) =>
      state === 'succeeded'
        ? { guest: guest.id, state: to, ...(givenUp.length === 0 ? {} : { gaveUpOn: givenUp }) }
        : undefined,
  };
};

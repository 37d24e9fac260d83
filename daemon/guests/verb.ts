/** guest-pause, guest-resume and guest-reset: one word to the process. */
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';
import { setUpInside } from './inside.ts';
import type { Procedure } from './perform.ts';
import { runsProgram } from './runs-program.ts';

/** It is not booted again: the longest deadline of a boot counts. */
const LAST_TRY = 3;

/** Its program would be gone, and with the program the guest ends. */
const resetsNot = ({ name }: Guest): RoostError =>
  new RoostError('Unsupported', `Guest ${name} runs the program of a container image and is not reset`, {
    data: { guest: name },
    hint: 'Stop it and start it again.',
  });

export const verb = (guest: Guest, name: 'pause' | 'resume' | 'reset'): Procedure => ({
  steps: [
    {
      name,
      do: async ({ signal }) => {
        const { handle } = guest;
        if (!handle)
          throw new RoostError(
            'FailedPrecondition',
            `Guest ${guest.name} is ${guest.status.state}: there is nothing to ${name}`,
            {
              data: { guest: guest.name, state: guest.status.state },
              hint: 'Start it first.',
            },
          );
        if (name === 'reset' && runsProgram(guest.record.spec)) throw resetsNot(guest);
        if (name === 'pause') await guest.freezing.letGo('pause', signal);
        await handle[name](signal);
        if (name === 'reset') guest.freezing.forget('reset');
        if (name === 'resume') guest.freezing.begin();
        await guest.lookAgain();
        // One that was started paused has no program yet.
        if (name === 'resume') await setUpInside(guest, LAST_TRY, signal);
      },
    },
  ],
  finish: () => ({ guest: guest.id }),
});

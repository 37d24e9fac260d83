/** guest-pause, guest-resume and guest-reset: one word to the process. */
import { RoostError } from '../../protocol/errors.ts';
import type { Guest } from './guest.ts';
import type { Procedure } from './perform.ts';

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
        if (name === 'pause') await guest.freezing.letGo('pause', signal);
        await handle[name](signal);
        if (name === 'reset') guest.freezing.forget('reset');
        if (name === 'resume') guest.freezing.begin();
        await guest.lookAgain();
      },
    },
  ],
  finish: () => ({ guest: guest.id }),
});

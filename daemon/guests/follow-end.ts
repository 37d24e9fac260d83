/** Waits for the end of a guest's process, and has it handled at the front of the mailbox, also while nothing can be recorded. */
import type { GuestHandle } from '../../drivers/driver.ts';
import type { Guest } from './guest.ts';

export const followEnd = (guest: Guest, handle: GuestHandle): void => {
  const { log, operations } = guest.house;
  void handle.ended.then((end) =>
    guest.mailbox
      .post(
        async () => {
          if (guest.handle === handle) await operations.untilRecorded(() => guest.wrapUp(end));
        },
        { front: true },
      )
      .catch((err: unknown) =>
        log.error({ err, guest: guest.name }, 'the end of the guest could not be handled'),
      ),
  );
};

/** What follows the end of a guest's process: what its run had is freed, and how it ended is written and told. */
import type { GuestEnd } from '../../drivers/driver.ts';
import type { Guest } from './guest.ts';

/** Lets the policies decide what is next. In the mailbox. */
export const wrapUp = async (guest: Guest, end: GuestEnd): Promise<void> => {
  const started = guest.status.process?.startedAt ?? end.at;
  const program = guest.status.process?.programEnd;
  await guest.freeRun();
  const programFailed = program !== undefined && program.exitCode !== 0;
  if (end.cause === 'guest-shutdown') guest.shutItselfDown(programFailed);
  const badly = end.cause === 'killed' || end.cause === 'crashed' || end.cause === 'unknown';
  const failed = badly && guest.record.target === 'running';
  const { at, ...told } = end;
  const exit = { ...told, ...program };
  guest.setStatus({
    state: failed ? 'failed' : 'stopped',
    reason: failed ? (end.detail ?? end.cause) : undefined,
    lastExit: { at, ...exit },
  });
  guest.tell({ event: 'GUEST_EXITED', data: { guest: guest.id, name: guest.name, ...exit } });
  guest.restarts.afterEnd({ cause: end.cause, programFailed, ranMs: Math.max(0, end.at - started) });
  guest.deletion.arm();
};

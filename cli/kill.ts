/** `roost kill`: a signal for the main programs of guests. */
import { worstOf } from './exit-codes.ts';
import { failureLines, toFailure } from './failure.ts';
import type { Context } from './io.ts';
import type { Invocation } from './verb.ts';

export const killGuests = async ({ flags, positionals }: Invocation, context: Context): Promise<number> => {
  const named = positionals['NAME'] ?? [];
  const guests = [...new Set(typeof named === 'string' ? [named] : named)];
  const given = flags['signal'];
  const signal =
    typeof given === 'string' ? (/^\d+$/.test(given) ? Number(given) : given.toUpperCase()) : undefined;
  const client = await context.client();
  const codes = await Promise.all(
    guests.map(async (guest) => {
      try {
        const args = { guest, ...(signal === undefined ? {} : { signal }) };
        await client.call('guest-signal', args, { signal: context.signal });
        context.print(guest);
        return 0;
      } catch (error) {
        const failure = toFailure(error);
        context.note(failureLines(failure, guests.length > 1 ? { subject: guest } : {}));
        return failure.exitCode;
      }
    }),
  );
  return worstOf(codes);
};

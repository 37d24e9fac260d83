/** Whose a QEMU is, by the command line that it was launched with. */
import { guestId } from '../../protocol/types.ts';
import { type Identify, valueAfter } from '../processes/find-processes.ts';

export const identify: Identify = (argv) => {
  const guest = guestId.safeParse(valueAfter(argv, '-uuid'));
  return guest.success ? { guest: guest.data, name: nameIn(argv) } : undefined;
};

const nameIn = (argv: readonly string[]): string =>
  /(?:^|,)guest=([^,]*)/.exec(valueAfter(argv, '-name') ?? '')?.[1] ?? '';

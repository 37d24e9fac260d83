/** Commands that hold the ledger against the host, and mend what differs. */
import { z } from 'zod';
import { defineCommand } from '../command.ts';
import { fsckReport } from '../fsck.ts';
import { accepted, changing } from '../operation.ts';

const since = '0.2.0';

export const queryFsck = defineCommand({
  name: 'query-fsck',
  summary: 'Compare the ledger with the host',
  description:
    'Looks in both directions and changes nothing. What work is under way on is named and not compared; a difference is told only when it was seen twice.',
  role: 'read',
  nature: 'wait',
  since,
  arguments: z.strictObject({}),
  returns: fsckReport,
});

export const fsckRepair = defineCommand({
  name: 'fsck-repair',
  summary: 'Mend the differences between ledger and host that are ours to mend',
  description:
    'Removes what of this instance is on the host without an owner, makes again what is missing, and corrects the ledger. It ends no process, removes no disk that a guest could still want, and touches nothing of others. The result tells what was mended and what is left.',
  role: 'admin',
  nature: 'change',
  since,
  arguments: z.strictObject({ ...changing }),
  returns: accepted,
});

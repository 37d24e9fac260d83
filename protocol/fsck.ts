/**
 * The ledger held against the host: what differs, why, and who mends it. Words are those of docs/architecture.md, "The
 * ledger"; docs/recovery.md says what to do about each kind.
 */
import { z } from 'zod';
import { hostObject } from './host-object.ts';
import { subjectKinds } from './operation.ts';
import { operationId } from './types.ts';

export const differenceKinds = {
  leaked: 'On the host under a name of this instance, and no row of the ledger says so',
  lost: 'In the ledger, and not on the host: work that was cut short, or somebody took it away',
  abandoned: 'In the ledger for an owner that is not in the inventory any more',
  'stray-process': 'A live guest process of this instance whose guest is not in the inventory',
  'stray-record': "A guest's record beside its disks, and the guest is not in the inventory",
  'unlocked-process':
    'A live process of a guest whose lock file somebody took away: the next look would take it for gone',
  'missing-file': 'A file that a disk or an image is made of is not there',
} as const;
export type DifferenceKind = keyof typeof differenceKinds;

export const difference = z.strictObject({
  kind: z.enum(Object.keys(differenceKinds) as [DifferenceKind, ...DifferenceKind[]]),
  object: hostObject.optional().describe('The object concerned'),
  path: z.string().optional().describe('The file concerned, where it is no object of the ledger'),
  owner: z
    .strictObject({ kind: z.enum(subjectKinds), id: z.string(), name: z.string().optional() })
    .optional()
    .describe('Whose it is, as far as that can be told'),
  operation: operationId.optional().describe('The operation that left it'),
  cause: z.string().describe('Why it is so, in words'),
  mend: z
    .strictObject({
      by: z
        .enum(['repair', 'person'])
        .describe('`repair`: fsck-repair does it · `person`: nobody else may decide it'),
      how: z.string(),
    })
    .describe('What is to be done'),
});
export type Difference = Readonly<z.infer<typeof difference>>;

export const fsckReport = z.strictObject({
  differences: z.array(difference),
  compared: z.int().describe('Objects that ledger and host agree on'),
  underWay: z
    .array(
      z.strictObject({
        kind: z.enum(subjectKinds),
        id: z.string(),
        name: z.string(),
        why: z.string().optional().describe('Why not, if it is not work that is under way'),
      }),
    )
    .describe('What was not compared, because work on it was under way or nothing can be told of it'),
  foreign: z
    .array(z.strictObject({ what: z.string(), whose: z.string() }))
    .describe('Seen on the host and of another instance: not ours, and never touched'),
});
export type FsckReport = Readonly<z.infer<typeof fsckReport>>;

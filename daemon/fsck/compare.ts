/**
 * What differs between ledger and host, and why: pure, from two readings of the ledger and one of the host in between.
 *
 * A row counts as missing its object only if it stood there before and after the look at the host; an object counts as
 * leaked only if no row was there before or after. Owners that work is under way on are left out.
 */
import type { Difference } from '../../protocol/fsck.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { SubjectKind } from '../../protocol/operation.ts';
import type { OperationId } from '../../protocol/types.ts';

export interface Row {
  readonly object: HostObject;
  readonly owner: { readonly kind: SubjectKind; readonly id: string };
  readonly scope: 'existence' | 'run';
}

export interface Owner {
  readonly kind: SubjectKind;
  readonly id: string;
  readonly name: string;
}

/** The operation that last ended, or is the last, on a subject. */
export interface LastOperation {
  readonly id: OperationId;
  readonly kind: string;
  readonly state: string;
  readonly subjectName: string;
  /** Whether by it the subject was to be gone: a deletion, or a creation that did not succeed. */
  readonly leavesNothing: boolean;
}

export interface Facts {
  readonly before: readonly Row[];
  readonly after: readonly Row[];
  readonly host: readonly HostObject[];
  /** The owner in the inventory, if it is there. */
  readonly known: (owner: { readonly kind: SubjectKind; readonly id: string }) => Owner | undefined;
  /** Whether work on it was or is under way. */
  readonly isBusy: (id: string) => boolean;
  /** The owner that an object belongs to by its name; undefined when that cannot be told. */
  readonly namedOwner: (
    object: HostObject,
  ) => { readonly kind: SubjectKind; readonly id: string } | undefined;
  readonly lastOperation: (id: string) => LastOperation | undefined;
  /** Live guest processes, by their lock. */
  readonly processes: ReadonlyMap<string, { readonly pid: number; readonly name: string }>;
  /** Name of the guest whose record lies in this directory beside the disks. */
  readonly recordIn: (object: HostObject) => string | undefined;
}

const rowKey = (row: Row): string => `${hostObjectKey(row.object)} ${row.owner.id}`;

/** Objects that go with their process by themselves, or stand for it. */
const OF_PROCESS: ReadonlySet<HostObject['kind']> = new Set([
  'process',
  'socket',
  'tap',
  'veth',
  'scope',
  'cgroup',
]);

const byOperation = (last: LastOperation | undefined): string =>
  last === undefined ? 'no operation that is kept tells why' : `left by ${last.kind} (${last.state})`;

const lost = (row: Row, owner: Owner, last: LastOperation | undefined): Difference => {
  const base = {
    kind: 'lost',
    object: row.object,
    owner,
    ...(last === undefined ? {} : { operation: last.id }),
  } as const;
  const whose = `${owner.kind} ${owner.name}`;
  if (row.scope === 'run')
    return {
      ...base,
      cause: OF_PROCESS.has(row.object.kind)
        ? `a run of ${whose} ended and was not cleared away`
        : `somebody took away what a run of ${whose} needs`,
      mend: { by: 'repair', how: 'clears the run away if its process is gone, else makes it again' },
    };
  if (owner.kind === 'network')
    return {
      ...base,
      cause: `somebody took away a part of ${whose}`,
      mend: { by: 'repair', how: 'makes the network whole again' },
    };
  if (owner.kind === 'image')
    return {
      ...base,
      kind: 'missing-file',
      cause: `somebody took away the files of ${whose}`,
      mend: { by: 'person', how: 'put them back from a backup, or delete the image and import it again' },
    };
  return {
    ...base,
    cause: `somebody took away a directory of ${whose}`,
    mend: { by: 'repair', how: 'makes the directory again; disks that were in it are named as missing' },
  };
};

const abandoned = (row: Row, isThere: boolean, last: LastOperation | undefined): Difference => ({
  kind: 'abandoned',
  object: row.object,
  owner: { ...row.owner, ...(last === undefined ? {} : { name: last.subjectName }) },
  ...(last === undefined ? {} : { operation: last.id }),
  cause: isThere
    ? `its ${row.owner.kind} is gone and it could not be removed: ${byOperation(last)}`
    : `its ${row.owner.kind} is gone, and so is the object: ${byOperation(last)}`,
  mend:
    isThere && row.object.kind === 'process'
      ? { by: 'person', how: 'end that process; once it is gone, fsck-repair forgets it' }
      : { by: 'repair', how: isThere ? 'removes it' : 'forgets the row' },
});

const leakedOfKnown = (object: HostObject, owner: Owner): Difference => ({
  kind: 'leaked',
  object,
  owner,
  cause: `it belongs to ${owner.kind} ${owner.name}, whose row in the ledger is missing`,
  mend: { by: 'repair', how: 'writes the row again, or removes the object if nothing of it is in use' },
});

const stray = (
  object: HostObject,
  owner: { readonly kind: SubjectKind; readonly id: string },
  { pid, name }: { readonly pid: number; readonly name: string },
  last: LastOperation | undefined,
): Difference => ({
  kind: 'stray-process',
  object,
  owner: { ...owner, name },
  ...(last === undefined ? {} : { operation: last.id }),
  cause: `process ${pid} runs guest ${name} of this instance, which is not in the inventory: ${byOperation(last)}`,
  mend: { by: 'person', how: `take it over with 'roost adopt ${pid}', or end it` },
});

const strayRecord = (
  object: HostObject,
  owner: { readonly kind: SubjectKind; readonly id: string },
  name: string,
): Difference => ({
  kind: 'stray-record',
  object,
  owner: { ...owner, name },
  cause: `here lie the record and the disks of guest ${name}, which is not in the inventory`,
  mend: {
    by: 'person',
    how: `take it back with 'roost adopt ${owner.id}', or remove the directory yourself`,
  },
});

const leakedOfNobody = (
  object: HostObject,
  owner: { readonly kind: SubjectKind; readonly id: string } | undefined,
  last: LastOperation | undefined,
): Difference => {
  const named = owner && { ...owner, ...(last === undefined ? {} : { name: last.subjectName }) };
  const base = {
    kind: 'leaked',
    object,
    ...(named === undefined ? {} : { owner: named }),
    ...(last === undefined ? {} : { operation: last.id }),
  } as const;
  const cause =
    owner === undefined
      ? 'its name is of this instance, and nothing in the inventory has it'
      : `it is of a ${owner.kind} that is not in the inventory: ${byOperation(last)}`;
  const mayHoldData = object.kind === 'directory' || object.kind === 'file' || object.kind === 'process';
  if (!mayHoldData || last?.leavesNothing === true)
    return { ...base, cause, mend: { by: 'repair', how: 'removes it' } };
  return {
    ...base,
    cause,
    mend: {
      by: 'person',
      how:
        object.kind === 'process'
          ? 'take it over with roost adopt, or end it'
          : 'look what is in it: nothing kept says that it may go',
    },
  };
};

const keysOf = (rows: readonly Row[]): ReadonlySet<string> =>
  new Set(rows.map((row) => hostObjectKey(row.object)));

/** Every difference between ledger and host, sorted as the ledger is. */
export const compare = (facts: Facts): readonly Difference[] => {
  const stayed = new Set(facts.after.map(rowKey));
  const there = new Set(facts.host.map(hostObjectKey));
  const rowed = new Set([...keysOf(facts.before), ...keysOf(facts.after)]);
  const ofRows = facts.before
    .filter((row) => stayed.has(rowKey(row)) && !facts.isBusy(row.owner.id))
    .flatMap((row): readonly Difference[] => {
      const owner = facts.known(row.owner);
      const isThere = there.has(hostObjectKey(row.object));
      // Nearly all rows are in order; the journal is asked about the others alone.
      if (owner !== undefined && isThere) return [];
      const last = facts.lastOperation(row.owner.id);
      return [owner === undefined ? abandoned(row, isThere, last) : lost(row, owner, last)];
    });
  const ofHost = facts.host
    .filter((object) => !rowed.has(hostObjectKey(object)))
    .flatMap((object): readonly Difference[] => {
      const named = facts.namedOwner(object);
      if (named !== undefined && facts.isBusy(named.id)) return [];
      const owner = named && facts.known(named);
      if (owner !== undefined) return [leakedOfKnown(object, owner)];
      const last = named && facts.lastOperation(named.id);
      const process = object.kind === 'process' ? facts.processes.get(object.name) : undefined;
      if (named !== undefined && process !== undefined) return [stray(object, named, process, last)];
      const record = facts.recordIn(object);
      if (named !== undefined && record !== undefined && last?.leavesNothing !== true)
        return [strayRecord(object, named, record)];
      return [leakedOfNobody(object, named, last)];
    });
  return [...ofRows, ...ofHost];
};

/** What makes two differences of two looks the same. */
export const differenceKey = ({ kind, object, path, owner }: Difference): string =>
  [kind, object && hostObjectKey(object), path, owner?.id].join(' ');

/** What people call a signal. */
import { constants } from 'node:os';

/** The first name of each number is the usual one: SIGABRT, not SIGIOT. */
const signalNames: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.signals)
    .toReversed()
    .map(([name, number]) => [number, name]),
);

/** `signal 34` for one without a name. */
export const signalName = (number: number): string => signalNames.get(number) ?? `signal ${number}`;

/** For tests of guests with directories of the host: who serves them, asked of the host itself. */
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { DaemonHome } from './real-daemon.ts';

const linksIn = (directory: string): readonly string[] => {
  try {
    return readdirSync(directory).flatMap((name) => {
      try {
        return [readlinkSync(join(directory, name))];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
};

/** Pids of those who have the lock of this home's guests open, in order: each directory has two, the second inside. */
export const directoryServers = ({ stateDirectory }: Pick<DaemonHome, 'stateDirectory'>): readonly number[] =>
  readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .filter((pid) =>
      linksIn(`/proc/${pid}/fd`).some(
        (path) => path.startsWith(`${stateDirectory}/guests/`) && path.includes('.directories.lock'),
      ),
    );

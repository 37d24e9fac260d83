/**
 * Where a daemon keeps its things unless told otherwise, and so where its clients look for its socket: the places of
 * the file system hierarchy for root, those of the XDG base directory specification for everyone else.
 */
import { join } from 'node:path';

export interface DefaultDirectories {
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly configFile: string;
}

export interface DirectoryOwner {
  /** Effective uid of the process. */
  readonly uid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** File name of the daemon's socket in its run directory. */
export const SOCKET_FILE = 'roost.sock';

/** The specification has relative paths ignored; an empty value means unset. */
const absolute = (value: string | undefined): string | undefined =>
  value?.startsWith('/') === true ? value : undefined;

export const defaultDirectories = ({ uid, env }: DirectoryOwner): DefaultDirectories => {
  if (uid === 0) {
    return {
      stateDirectory: '/var/lib/roost',
      runDirectory: '/run/roost',
      configFile: '/etc/roost/roostd.yaml',
    };
  }
  const home = absolute(env['HOME']) ?? '/';
  const stateDirectory = join(absolute(env['XDG_STATE_HOME']) ?? join(home, '.local/state'), 'roost');
  const runtime = absolute(env['XDG_RUNTIME_DIR']);
  return {
    stateDirectory,
    runDirectory: runtime === undefined ? join(stateDirectory, 'run') : join(runtime, 'roost'),
    configFile: join(absolute(env['XDG_CONFIG_HOME']) ?? join(home, '.config'), 'roost/roostd.yaml'),
  };
};

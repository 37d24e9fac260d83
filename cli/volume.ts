/**
 * Volumes as `docker run -v` has them: `SOURCE:TARGET[:OPTIONS]`. A source that begins with a slash or a dot is a directory
 * of the host; the other forms, a volume by its name and one without any, are refused here with what to do instead.
 */
import { posix } from 'node:path';
import type { FilesystemSpec } from '../protocol/filesystem.ts';
import { UnitError } from './units.ts';

/** What Docker takes and what is so anyway: the kernel of the guest keeps its own cache, and mounts do not come back. */
const NO_EFFECT: ReadonlySet<string> = new Set(['consistent', 'cached', 'delegated', 'rprivate']);

const FORM = 'write it as /host/directory:/path, ./directory:/path or /host/directory:/path:ro';

const refused = (text: string, why: string): UnitError => new UnitError(`volume '${text}': ${why}`);

/** Whether it is only to be read. */
const readModes = (text: string, modes: string): boolean => {
  const given = modes.split(',');
  const strange = given.find((mode) => mode !== 'ro' && mode !== 'rw' && !NO_EFFECT.has(mode));
  if (strange !== undefined)
    throw refused(text, `'${strange}' is no option that is known here; ro and rw are`);
  const access = given.filter((mode) => mode === 'ro' || mode === 'rw');
  if (access.length > 1) throw refused(text, 'it is to be ro or rw, once');
  return access[0] === 'ro';
};

const isMode = (text: string): boolean => text === 'ro' || text === 'rw';

/** `../x` and `.` as well, below the directory that the command is run in. */
const absolute = (source: string, cwd: string): string =>
  withoutSlash(source.startsWith('/') ? posix.normalize(source) : posix.join(cwd, source));

const withoutSlash = (path: string): string => (path.length > 1 ? path.replace(/\/$/, '') : path);

/** A directory of the host for the contract; `cwd`: absolute. Throws UnitError. */
export const parseVolume = (text: string, cwd: string): FilesystemSpec => {
  const [source = '', target, modes, ...more] = text.split(':');
  if (target === undefined || (modes === undefined && isMode(target))) {
    if (target !== undefined) throw refused(text, `an option needs a source and a target; ${FORM}`);
    throw refused(
      text,
      'volumes without a source are not made: what a guest writes is kept with it, and goes with it. Give a directory of the host',
    );
  }
  if (source === '' || target === '' || modes === '' || more.length > 0)
    throw refused(text, `it has an empty part, or too many; ${FORM}`);
  if (!/^[./]/.test(source))
    throw refused(
      text,
      source.includes('/')
        ? `a directory of the host begins with / or ./: ./${source}`
        : `volumes with a name are not made. Give a directory of the host (./${source} for the one of that name here), or add a disk: 'roost disk attach'`,
    );
  if (!target.startsWith('/')) throw refused(text, `the path in the guest must be absolute: /${target}`);
  const readOnly = modes === undefined ? false : readModes(text, modes);
  return { source: absolute(source, cwd), target: withoutSlash(posix.normalize(target)), readOnly };
};

/**
 * Volumes as `docker run -v` has them: `SOURCE:TARGET[:OPTIONS]`. A source that begins with a slash or a dot is a directory
 * of the host; the other forms, a volume by its name and one without any, are refused here with what to do instead. Options
 * of ours are `share` and `copy`: insist on the directory itself, or have a copy of it.
 */
import { posix } from 'node:path';
import type { FilesystemSpecInput } from '../protocol/filesystem.ts';
import { UnitError } from './units.ts';

/** What Docker takes and what is so anyway: the kernel of the guest keeps its own cache, and mounts do not come back. */
const NO_EFFECT: ReadonlySet<string> = new Set(['consistent', 'cached', 'delegated', 'rprivate']);

const FORM = 'write it as /host/directory:/path, ./directory:/path or /host/directory:/path:ro';

const refused = (text: string, why: string): UnitError => new UnitError(`volume '${text}': ${why}`);

const isAccess = (mode: string): boolean => mode === 'ro' || mode === 'rw';
const isManner = (mode: string): mode is 'share' | 'copy' => mode === 'share' || mode === 'copy';

/** How it is to be had, and whether only to be read. */
const readModes = (text: string, modes: string): Pick<FilesystemSpecInput, 'readOnly' | 'mode'> => {
  const given = modes.split(',');
  const strange = given.find((mode) => !isAccess(mode) && !isManner(mode) && !NO_EFFECT.has(mode));
  if (strange !== undefined)
    throw refused(text, `'${strange}' is no option that is known here; ro, rw, share and copy are`);
  const access = given.filter(isAccess);
  if (access.length > 1) throw refused(text, 'it is to be ro or rw, once');
  const manners = given.filter(isManner);
  if (manners.length > 1) throw refused(text, 'it is to be share or copy, once');
  const [mode] = manners;
  return { readOnly: access[0] === 'ro', ...(mode === undefined ? {} : { mode }) };
};

const isMode = (text: string): boolean => isAccess(text) || isManner(text);

/** `../x` and `.` as well, below the directory that the command is run in. */
const absolute = (source: string, cwd: string): string =>
  withoutSlash(source.startsWith('/') ? posix.normalize(source) : posix.join(cwd, source));

const withoutSlash = (path: string): string => (path.length > 1 ? path.replace(/\/$/, '') : path);

/** A directory of the host for the contract; `cwd`: absolute. Throws UnitError. */
export const parseVolume = (text: string, cwd: string): FilesystemSpecInput => {
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
        : `volumes with a name are not made: every disk is one guest's own, and goes with it. Give a directory of the host, which stays (./${source} for the one of that name here)`,
    );
  if (!target.startsWith('/')) throw refused(text, `the path in the guest must be absolute: /${target}`);
  return {
    source: absolute(source, cwd),
    target: withoutSlash(posix.normalize(target)),
    ...readModes(text, modes ?? 'rw'),
  };
};

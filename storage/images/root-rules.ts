/**
 * What an archive has to be for a container to begin in it, and what of it comes into the image. Pure.
 *
 * Left out, because a container can do nothing with it, or harm:
 * - device files: a container's own are bind mounts of the host's, and to one in its root it would have an open door;
 * - extended attributes `trusted.*`: they are overlayfs' own words, which the layer under a guest's is not to speak.
 */
import { RoostError } from '../../protocol/errors.ts';
import type { TreeEntry } from '../oci/tree/layer-tree.ts';
import type { TreeRules } from '../oci/tree/merge.ts';

/** Ids that a container has, from 0. */
const ID_COUNT = 65_536;
/** At the top of any system. */
const systemNames: ReadonlySet<string> = new Set(['bin', 'sbin', 'usr', 'etc', 'init', 'nix']);
/** At the top of what `docker save` writes, and of an OCI layout. */
const imageNames: ReadonlySet<string> = new Set(['manifest.json', 'oci-layout', 'index.json']);

const refuse = (flaw: string, message: string, hint: string): RoostError =>
  new RoostError('InvalidArgument', message, { data: { flaw }, hint });

const isForeign = (id: number): boolean => id >= ID_COUNT;

export class RootRules implements TreeRules {
  readonly whiteouts = 'names';
  readonly #top = new Set<string>();

  keep(entry: TreeEntry): TreeEntry | undefined {
    const { path, file } = entry;
    const { type, uid, gid, xattrs } = file;
    if (type === 'character' || type === 'block') return undefined;
    if (isForeign(uid) || isForeign(gid))
      throw refuse(
        'owner',
        `The image has a file of owner ${uid}:${gid}: ${JSON.stringify(path.slice(0, 256))}`,
        `A container has the ids 0 to ${ID_COUNT - 1}: make the archive with the owners as they are seen inside.`,
      );
    if (path !== '' && !path.includes('/')) this.#top.add(path);
    return { ...entry, file: { ...file, xattrs: xattrs.filter(([name]) => !name.startsWith('trusted.')) } };
  }

  end(): void {
    const top = [...this.#top];
    if (top.some((name) => systemNames.has(name))) return;
    if (top.some((name) => imageNames.has(name)))
      throw refuse(
        'no-root',
        'The image is no root file system, but one that holds its layers',
        'Import it with kind oci: of format docker-archive when docker save wrote it, else of oci-layout.',
      );
    throw refuse(
      'no-root',
      'The image holds no system: there is neither bin nor usr nor etc at its top',
      'The top of the archive has to be the root: make it with tar --directory=ROOT --create .',
    );
  }
}

/** Makes the one file of a root file system, a squashfs, out of a stranger's tar archive of it. */
import { constants } from 'node:fs';
import { open, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import { removeDirectory } from '../files/durable-files.ts';
import { type MergeOptions, mergeLayers } from '../oci/tree/merge.ts';
import { type ArchiveForm, archiveForm, HEAD_BYTES, whatElse } from './archive-form.ts';
import { RootRules } from './root-rules.ts';

const formOf = async (path: string): Promise<ArchiveForm> => {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
  const head = buffer.subarray(0, bytesRead);
  const form = archiveForm(head);
  if (form !== undefined) return form;
  throw new RoostError('InvalidArgument', 'It is no tar archive', {
    data: { flaw: 'not-tar' },
    hint: whatElse(head),
  });
};

/** In the words of whoever imports it. */
const named = (error: unknown, shownAs: string): unknown => {
  if (!(error instanceof RoostError) || error.class === 'HostError') return error;
  const { data, hint } = error;
  const message = error.message.replace(/^[A-Z]/, (letter) => letter.toLowerCase());
  return new RoostError(error.class, `${shownAs} cannot be imported: ${message}`, {
    data: { ...data, path: shownAs },
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
};

export interface RootArchive {
  /** The copy, which only the daemon can write and the throw-away identity can read. */
  readonly path: string;
  /** Path or URL that whoever imports knows it by. */
  readonly shownAs: string;
}

/**
 * Makes the file `result` and gives its size. Beside it, `result` + `.d` is made for the identity and removed. Errors: InvalidArgument for
 * what is no archive of a root or a hostile one, ResourceExhausted, Unsupported.
 */
export const packRoot = async (
  { path, shownAs }: RootArchive,
  result: string,
  options: Omit<MergeOptions, 'rules'>,
  work: Work,
): Promise<number> => {
  const directory = `${result}.d`;
  try {
    const layer = { path, isPacked: (await formOf(path)) !== 'tar' };
    await mergeLayers(directory, [layer], { ...options, rules: new RootRules() }, work);
  } catch (error) {
    throw named(error, shownAs);
  }
  await rename(join(directory, 'disk'), result);
  await removeDirectory(directory);
  return (await stat(result)).size;
};

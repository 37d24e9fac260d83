/** Reads a file that is believed because nobody but this user can have written it. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/** Whoever may write there besides the owner: group and others. */
const WRITABLE_BY_OTHERS = 0o022;

/**
 * The whole text. Follows no symbolic link, and takes only a regular file with one name that belongs to this user and is
 * written by no other. Rejects with an Error that says what is wrong with it, or the one of the system when it cannot be
 * opened.
 */
export const readOwnFile = async (path: string, maxBytes: number): Promise<string> => {
  await using file = await openPlain(path);
  const found = await file.stat();
  const { uid, mode, nlink, size } = found;
  if (!found.isFile()) throw new Error('it is no regular file');
  if (nlink !== 1) throw new Error('it has further names');
  if (uid !== process.geteuid?.()) throw new Error(`it belongs to user ${uid}`);
  if ((mode & WRITABLE_BY_OTHERS) !== 0) throw new Error('others may write it');
  if (size > maxBytes) throw new Error(`it has ${size} bytes, more than ${maxBytes}`);
  return await file.readFile('utf8');
};

const openPlain = async (path: string): ReturnType<typeof open> => {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ELOOP')
      throw new Error('it is a symbolic link', { cause: error });
    throw error;
  }
};

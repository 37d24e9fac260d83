/** Whether this host can serve a guest the directories that it is to have; asked before anything is made. */
import { access, constants, stat } from 'node:fs/promises';
import { RoostError } from '../../protocol/errors.ts';
import type { Launch } from '../driver.ts';

const cannot = (name: string, why: string, hint: string, data: object = {}): RoostError =>
  new RoostError('Unsupported', `Guest ${name} cannot be given directories of the host: ${why}`, {
    data: { guest: name, ...data },
    hint,
  });

const requireServer = async (name: string, virtiofsdPath: string): Promise<void> => {
  if (process.geteuid?.() !== 0)
    throw cannot(
      name,
      'the daemon does not run as root, which virtiofsd needs to keep to them',
      'Copy files by `roost cp`, or put them into an image; under a daemon that is root it works.',
    );
  try {
    await access(virtiofsdPath, constants.X_OK);
  } catch (cause) {
    throw cannot(
      name,
      `there is no ${virtiofsdPath}`,
      "Install Debian's package qemu-system-common, or name QEMU's virtiofsd in the configuration: qemu.virtiofsd.",
      { cause: String(cause), path: virtiofsdPath },
    );
  }
};

const kindOf = async (path: string): Promise<'directory' | 'other' | 'missing'> => {
  try {
    return (await stat(path)).isDirectory() ? 'directory' : 'other';
  } catch {
    return 'missing';
  }
};

const requireDirectory = async (name: string, source: string): Promise<void> => {
  const kind = await kindOf(source);
  if (kind === 'directory') return;
  const isMissing = kind === 'missing';
  throw new RoostError(
    'FailedPrecondition',
    isMissing
      ? `There is no directory ${source} on the host, which guest ${name} is to have`
      : `${source} of the host is no directory, and guest ${name} is to have it as one`,
    {
      data: { guest: name, source },
      hint: isMissing ? 'Make it first.' : 'Give the directory that it is in.',
    },
  );
};

/** Errors: Unsupported where nothing can serve a directory, FailedPrecondition for a source that is none now. */
export const requireServable = async (
  { name, filesystems = [] }: Pick<Launch, 'name' | 'filesystems'>,
  virtiofsdPath: string,
): Promise<void> => {
  if (filesystems.length > 0) await requireServer(name, virtiofsdPath);
  for (const { source } of filesystems) await requireDirectory(name, source);
};

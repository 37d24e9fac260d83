/** Whether this host can serve a guest the directories that it is to have; asked before anything is made. */
import { access, constants, stat } from 'node:fs/promises';
import { type ErrorData, RoostError } from '../../protocol/errors.ts';
import type { Launch } from '../driver.ts';

interface Lack {
  readonly why: string;
  readonly hint: string;
  readonly data: ErrorData;
}

const AS_COPY = 'Ask for a copy (mode copy, or :copy of roost run -v).';

/** What this host lacks to serve any directory. */
const lackOf = async (virtiofsdPath: string): Promise<Lack | undefined> => {
  if (process.geteuid?.() !== 0)
    return {
      why: 'the daemon does not run as root, which virtiofsd needs to keep to them',
      hint: `${AS_COPY} Under a daemon that is root it works.`,
      data: {},
    };
  try {
    await access(virtiofsdPath, constants.X_OK);
    return undefined;
  } catch (cause) {
    return {
      why: `there is no ${virtiofsdPath}`,
      hint: `Install Debian's package qemu-system-common, or name QEMU's virtiofsd in the configuration: qemu.virtiofsd. ${AS_COPY}`,
      data: { cause: String(cause), path: virtiofsdPath },
    };
  }
};

/** See `Driver.cannotShare`. */
export const whyUnservable = async (virtiofsdPath: string): Promise<string | undefined> =>
  (await lackOf(virtiofsdPath))?.why;

const requireServer = async (name: string, virtiofsdPath: string): Promise<void> => {
  const lack = await lackOf(virtiofsdPath);
  if (lack === undefined) return;
  throw new RoostError('Unsupported', `Guest ${name} cannot share directories of the host: ${lack.why}`, {
    data: { guest: name, ...lack.data },
    hint: lack.hint,
  });
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

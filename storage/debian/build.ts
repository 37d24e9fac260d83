/**
 * Carries out the recipe of a Debian image. `building/` below the directory holds what is under way; the finished disk
 * is renamed out of it, so that a disk under its own name is complete.
 */
import { access, constants, mkdir, open, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import { orIfMissing, removeDirectory, removeFiles, renameDurably } from '../files/durable-files.ts';
import { saysFull, withStorageErrors } from '../files/storage-errors.ts';
import type { BuildRequest, BuiltFile, ImageBuilder } from '../pool.ts';
import { type Action, type Stage, stages } from './actions.ts';
import { hostSources } from './apt-sources.ts';
import type { RecipeInput } from './bootstrap.ts';
import { confined, type Privileges } from './confinement.ts';
import { PackageProgress } from './package-progress.ts';
import { DISK, recipe } from './recipe.ts';
import { ROOT_FILE, rootRecipe } from './root-recipe.ts';

/** Directories that tools of an administrator are in, also where a daemon's environment leaves them out. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

interface DebianRecipe {
  readonly actions: (input: RecipeInput) => readonly Action[];
  /** The finished file, which the last of the actions leaves. */
  readonly file: string;
  /** Programs that it runs, and the Debian package of each. */
  readonly programs: Readonly<Record<string, string>>;
}

const common = { mmdebstrap: 'mmdebstrap', unshare: 'util-linux', setpriv: 'util-linux' } as const;

const disk: DebianRecipe = {
  actions: recipe,
  file: DISK,
  programs: {
    ...common,
    sfdisk: 'fdisk',
    'mkfs.vfat': 'dosfstools',
    mcopy: 'mtools',
    mke2fs: 'e2fsprogs',
  },
};

const root: DebianRecipe = {
  actions: rootRecipe,
  file: ROOT_FILE,
  programs: { ...common, mksquashfs: 'squashfs-tools' },
};

const recipeOf = (name: BuildRequest['recipe']): DebianRecipe => (name === 'debian-root' ? root : disk);

/** Per cent of the whole at which each stage begins and ends, measured. */
const spans: Readonly<Record<Stage, readonly [start: number, end: number]>> = {
  packages: [0, 88],
  files: [88, 90],
  boot: [90, 91],
  disk: [91, 100],
  pack: [90, 100],
};

const privileges = (): Privileges => (process.geteuid?.() === 0 ? 'root' : 'mapped');

const isProgram = async (name: string): Promise<boolean> => {
  for (const directory of PATH.split(':')) {
    try {
      await access(join(directory, name), constants.X_OK);
      return true;
    } catch {
      // The next one.
    }
  }
  return false;
};

const refuseMissingPrograms = async ({ programs }: DebianRecipe): Promise<void> => {
  const missing: string[] = [];
  for (const name of Object.keys(programs)) if (!(await isProgram(name))) missing.push(name);
  if (missing.length === 0) return;
  const wanted = [...new Set(missing.map((name) => programs[name]))];
  throw new RoostError(
    'Unsupported',
    `Programs that build a Debian image are missing: ${missing.join(', ')}`,
    {
      data: { missing },
      hint: `On Debian: apt-get install ${wanted.join(' ')}`,
    },
  );
};

/** Without privileges the packages' users need ids, which only newuidmap(1) and /etc/subuid can give. */
const refuseMissingIds = async (signal: AbortSignal): Promise<void> => {
  if (privileges() === 'root') return;
  try {
    await runTool(confined('mapped', ['true']), { signal, env: { PATH } });
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    throw new RoostError('Unsupported', 'This daemon may not build a Debian image', {
      data: { said: error.stderr.trim() },
      hint: 'Run it as root, or give its user ids in /etc/subuid and /etc/subgid, and install the package uidmap.',
      cause: error,
    });
  }
};

const BUILDING = 'building';

/** Without privileges, files of the packages' users are nobody's that this process could remove. */
const removeTree = async (path: string): Promise<void> => {
  if (privileges() === 'mapped' && (await isThere(path))) {
    const signal = new AbortController().signal;
    await runTool(confined('mapped', ['rm', '-rf', '--one-file-system', '--', path]), {
      signal,
      timeoutMs: 0,
    });
  }
  await removeDirectory(path);
};

const isThere = async (path: string): Promise<boolean> =>
  (await orIfMissing(stat(path), undefined)) !== undefined;

class DebianBuilder implements ImageBuilder {
  readonly #furtherPackages: readonly string[];

  constructor(furtherPackages: readonly string[]) {
    this.#furtherPackages = furtherPackages;
  }

  async refuseUnbuildable(name: BuildRequest['recipe'], signal: AbortSignal): Promise<void> {
    await refuseMissingPrograms(recipeOf(name));
    await refuseMissingIds(signal);
  }

  async build({ recipe: name, suite, directory }: BuildRequest, work: Work): Promise<BuiltFile> {
    const { actions: actionsFor, file } = recipeOf(name);
    const result: BuiltFile = { path: join(directory, file), format: 'raw' };
    const building = join(directory, BUILDING);
    return await withStorageErrors('build a Debian image', async () => {
      await removeTree(building);
      if (await isThere(result.path)) return result;
      await this.refuseUnbuildable(name, work.signal);
      await mkdir(building, { mode: 0o700 });
      const found = await hostSources(suite, work.signal);
      const actions = actionsFor({ suite, ...found, furtherPackages: this.#furtherPackages });
      for (const [index, action] of actions.entries()) {
        work.signal.throwIfAborted();
        tellPlace(actions, index, work);
        await carryOut(action, building, work);
      }
      await renameDurably(join(building, file), result.path);
      await removeTree(building);
      return result;
    });
  }

  async clear(directory: string): Promise<void> {
    await withStorageErrors(`clear ${directory}`, async () => {
      await removeTree(join(directory, BUILDING));
      await removeFiles(directory, [disk.file, root.file]);
    });
  }
}

/** @param options.furtherPackages in the image besides those of every Debian image of ours */
export const debianBuilder = (options: { readonly furtherPackages?: readonly string[] } = {}): ImageBuilder =>
  new DebianBuilder(options.furtherPackages ?? []);

const tell = (percent: number, message: string, work: Work): void =>
  work.progress({ done: Math.round(percent), total: 100, unit: 'percent', message });

/** Progress by the place of an action among those of its stage. */
const tellPlace = (actions: readonly Action[], index: number, work: Work): void => {
  const action = actions[index];
  if (action?.kind !== 'run') return;
  const { stage } = action;
  const same = actions.filter((other) => other.kind === 'run' && other.stage === stage);
  const [start, end] = spans[stage];
  tell(start + ((end - start) * same.indexOf(action)) / same.length, stages[stage], work);
};

const carryOut = async (action: Action, directory: string, work: Work): Promise<void> => {
  switch (action.kind) {
    case 'run':
      return await runStage(action, directory, work);
    case 'directory':
      await mkdir(join(directory, action.path), { mode: 0o755 });
      return;
    case 'file':
      return await writeFile(join(directory, action.path), action.text, { mode: 0o644, flag: 'wx' });
    case 'link':
      return await symlink(action.target, join(directory, action.path));
    case 'poke':
      return await poke(join(directory, action.path), action.offset, action.value);
  }
};

const poke = async (path: string, offset: number, value: number): Promise<void> => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
};

const runStage = async (
  { stage, argv, input }: Action & { readonly kind: 'run' },
  directory: string,
  work: Work,
): Promise<void> => {
  const seen = new PackageProgress();
  const listen = (text: string): void => {
    const fraction = seen.hear(text);
    if (fraction !== undefined) tell(spans.packages[1] * fraction, seen.doing, work);
  };
  try {
    await runTool(confined(privileges(), argv), {
      signal: work.signal,
      cwd: directory,
      env: { PATH, LC_ALL: 'C.UTF-8', TMPDIR: directory, DEBIAN_FRONTEND: 'noninteractive' },
      timeoutMs: 0,
      ...(input === undefined ? {} : { input }),
      ...(stage === 'packages' ? { onStdout: listen, onStderr: listen } : {}),
    });
  } catch (error) {
    throw error instanceof ExecError ? toolFailed(argv[0], error) : error;
  }
};

/** The last lines of a tool in which it complains. */
const complaints = (stderr: string): string => {
  const lines = stderr.trim().split('\n');
  const said = lines.filter((line) => /^(E:|W:|dpkg: error|.*: error)/i.test(line));
  return (said.length > 0 ? said : lines).slice(-3).join(' · ');
};

const toolFailed = (program: string, error: ExecError): RoostError => {
  if (saysFull(error)) {
    return new RoostError('ResourceExhausted', 'No space is left for building a Debian image', {
      data: { tool: program, said: error.stderr.slice(-2048) },
      hint: 'It needs about 2 GiB in the state directory while it is built.',
      cause: error,
    });
  }
  return new RoostError('HostError', `${program} failed: ${complaints(error.stderr)}`, {
    data: {
      tool: program,
      said: error.stderr.slice(-4096),
      ...(error.exitCode === undefined ? {} : { exitCode: error.exitCode }),
    },
    hint:
      program === 'mmdebstrap'
        ? "See that the host reaches Debian's mirror: apt-get update"
        : 'Mend what the message names, then try again.',
    cause: error,
  });
};

/**
 * Builds what a container image boots by as a microVM: the kernel of Debian's cloud images as an ELF file, our init with
 * the modules of that kernel, and the empty file system under which each guest has a layer of its own. `building/` below
 * the directory holds what is under way; a file under its own name is complete.
 */
import { mkdir, open, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import { hostSources } from '../debian/apt-sources.ts';
import { confined } from '../debian/confinement.ts';
import { orIfMissing, removeDirectory, removeFiles, renameDurably } from '../files/durable-files.ts';
import { saysFull, withStorageErrors } from '../files/storage-errors.ts';
import type { BuildRequest, BuiltFile, ImageBuilder } from '../pool.ts';

/** The recipes of `guest/`, which knows how a microVM begins. */
export interface MicrovmRecipes {
  /** Writes the ELF kernel of a bzImage. */
  extractKernel(imagePath: string, outputPath: string, signal: AbortSignal): Promise<void>;
  /** The archive of our init with the modules of a kernel, `/lib/modules/VERSION` of its package. */
  buildInit(moduleFolder: string): Promise<Buffer>;
}

/** The package whose dependency is the newest kernel for virtual machines. */
const KERNEL_PACKAGE = 'linux-image-cloud-amd64';
const GIBIBYTE = 1024 * 1024 * 1024;
/** Sparse: what a guest may write at most. */
const UPPER_BYTES = 16 * GIBIBYTE;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const BUILDING = 'building';
const RESULT = 'result';

class MicrovmBuilder implements ImageBuilder {
  readonly #recipes: MicrovmRecipes;

  constructor(recipes: MicrovmRecipes) {
    this.#recipes = recipes;
  }

  refuseUnbuildable(recipe: BuildRequest['recipe'], signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (recipe === 'microvm-upper' || process.geteuid?.() === 0) return Promise.resolve();
    throw new RoostError('Unsupported', 'Only a daemon with privileges unpacks the kernel of a microVM', {
      hint: 'Build it under a daemon that is root, or import one of your own as microvm-kernel and microvm-init.',
    });
  }

  async build({ recipe, suite, directory }: BuildRequest, work: Work): Promise<BuiltFile> {
    const result: BuiltFile = { path: join(directory, RESULT), format: 'raw' };
    const building = join(directory, BUILDING);
    return await withStorageErrors(`build ${recipe}`, async () => {
      await removeDirectory(building);
      if ((await orIfMissing(stat(result.path), undefined)) !== undefined) return result;
      await mkdir(building, { mode: 0o700 });
      const made = join(building, RESULT);
      if (recipe === 'microvm-upper') await makeUpper(made, work);
      else await this.#makePart(recipe, { suite, building, made }, work);
      await renameDurably(made, result.path);
      await removeDirectory(building);
      return result;
    });
  }

  async clear(directory: string): Promise<void> {
    await withStorageErrors(`clear ${directory}`, async () => {
      await removeDirectory(join(directory, BUILDING));
      await removeFiles(directory, [RESULT]);
    });
  }

  async #makePart(
    recipe: BuildRequest['recipe'],
    { suite, building, made }: { readonly suite: string; readonly building: string; readonly made: string },
    work: Work,
  ): Promise<void> {
    const tree = join(building, 'tree');
    tell(0, `fetching ${KERNEL_PACKAGE}`, work);
    await unpackKernel(suite, tree, work);
    const release = await releaseIn(tree);
    tell(80, release, work);
    if (recipe === 'microvm-kernel')
      await this.#recipes.extractKernel(join(tree, 'boot', `vmlinuz-${release}`), made, work.signal);
    else await writeFile(made, await this.#recipes.buildInit(join(tree, 'lib/modules', release)));
  }
}

export const microvmBuilder = (recipes: MicrovmRecipes): ImageBuilder => new MicrovmBuilder(recipes);

const tell = (percent: number, message: string, work: Work): void =>
  work.progress({ done: percent, total: 100, unit: 'percent', message });

const run = async (argv: readonly [string, ...string[]], work: Work): Promise<void> => {
  try {
    const env = { PATH, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' };
    await runTool(confined('root', argv), { signal: work.signal, timeoutMs: 0, env });
  } catch (error) {
    throw error instanceof ExecError ? toolFailed(argv[0], error) : error;
  }
};

/** The files of the kernel's package and of what it depends on; no script of theirs is run. */
const unpackKernel = async (suite: string, tree: string, work: Work): Promise<void> => {
  const { sources, aptOptions } = await hostSources(suite, work.signal);
  await run(
    [
      'mmdebstrap',
      '--mode=root',
      '--variant=extract',
      '--format=directory',
      '--skip=check/signed-by',
      ...aptOptions.map((option) => `--aptopt=${option}`),
      `--include=${KERNEL_PACKAGE}`,
      suite,
      tree,
      ...sources,
    ],
    work,
  );
};

const releaseIn = async (tree: string): Promise<string> => {
  const images = (await readdir(join(tree, 'boot'))).filter((name) => name.startsWith('vmlinuz-'));
  const [image] = images;
  if (image !== undefined && images.length === 1) return image.slice('vmlinuz-'.length);
  throw new RoostError('HostError', `Package ${KERNEL_PACKAGE} has ${images.length} kernels instead of one`, {
    data: { images },
  });
};

/** An ext4 that nothing was written to; its tables are made as they are needed. */
const makeUpper = async (path: string, work: Work): Promise<void> => {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.truncate(UPPER_BYTES);
  } finally {
    await file.close();
  }
  const lazy = 'lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0';
  await runTool(['mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0', '-E', lazy, path], {
    signal: work.signal,
    env: { PATH },
  }).catch((error: unknown) => {
    throw error instanceof ExecError ? toolFailed('mke2fs', error) : error;
  });
};

const toolFailed = (program: string, error: ExecError): RoostError => {
  const said = error.stderr.trim().split('\n').slice(-3).join(' · ');
  if (saysFull(error))
    return new RoostError('ResourceExhausted', `No space is left for building: ${said}`, {
      data: { tool: program },
      hint: 'It needs about 500 MiB in the state directory.',
      cause: error,
    });
  return new RoostError('HostError', `${program} failed: ${said || error.message}`, {
    data: { tool: program, said: error.stderr.slice(-4096) },
    hint: error.wasNotFound
      ? `Install the package that has ${program}.`
      : "See that the host reaches Debian's mirror: apt-get update",
    cause: error,
  });
};

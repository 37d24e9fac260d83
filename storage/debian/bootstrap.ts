/** The tree of a Debian release out of its packages, by mmdebstrap. Pure. */
import { type Action, ROOT, run } from './actions.ts';

export interface RecipeInput {
  readonly suite: string;
  /** Lines of sources.list(5) that the packages come from. */
  readonly sources: readonly string[];
  /** Settings of apt for the build alone, as `Acquire::http::Proxy "http://…";`. */
  readonly aptOptions: readonly string[];
  /** Packages besides those of every image. */
  readonly furtherPackages?: readonly string[];
}

/** Text in languages nobody asked for, and manuals without man(1): half of what the packages unpack. */
const excluded = ['/usr/share/man/*', '/usr/share/doc/*', '/usr/share/locale/*'] as const;
const includedAgain = ['/usr/share/doc/*/copyright', '/usr/share/locale/locale.alias'] as const;

/** @param packages besides apt and what every Debian has */
export const bootstrap = (
  { suite, sources, aptOptions, furtherPackages = [] }: RecipeInput,
  packages: readonly string[],
): Action =>
  run(
    'packages',
    'mmdebstrap',
    // Either the daemon is root or the tool is, in a namespace of its own.
    '--mode=root',
    '--format=directory',
    '--variant=apt',
    '--verbose',
    '--skip=check/signed-by',
    ...[...aptOptions, 'Acquire::Languages "none"', 'APT::Sandbox::User "root"'].map(
      (option) => `--aptopt=${option}`,
    ),
    // Nothing of it has to outlive a power loss before the disk is written.
    '--dpkgopt=force-unsafe-io',
    ...excluded.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
    ...includedAgain.map((pattern) => `--dpkgopt=path-include=${pattern}`),
    `--include=${[...packages, ...furtherPackages].join(',')}`,
    suite,
    ROOT,
    ...sources,
  );

/** What the host's own apt says about Debian's archive: its mirrors and the proxy on the way there. */
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';

/** Fields of `apt-get indextargets`, in the order of our format. */
const FORMAT = '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Suites of a release, and the archive's own place for each. */
const suitesOf = (suite: string): readonly (readonly [suite: string, defaultUri: string])[] => [
  [suite, 'http://deb.debian.org/debian'],
  [`${suite}-updates`, 'http://deb.debian.org/debian'],
  [`${suite}-security`, 'http://deb.debian.org/debian-security'],
];

/**
 * Lines of sources.list(5) for a release: from the mirrors of the host where it has any, else from deb.debian.org. Whatever
 * the place, Debian's own keyring has to have signed what comes from it. Pure.
 */
export const sourcesFor = (suite: string, indexTargets: string): readonly string[] => {
  const mirrors = indexTargets.split('\n').map((line) => line.split('|'));
  return suitesOf(suite).map(([wanted, defaultUri]) => {
    const mirror = mirrors.find(
      ([origin, , release, component]) => origin === 'Debian' && release === wanted && component === 'main',
    );
    return `deb [signed-by=${KEYRING}] ${mirror?.[1] ?? defaultUri} ${wanted} main`;
  });
};

/** The lines of `apt-config dump` that say how to reach a mirror. Pure. */
export const transportOptions = (dump: string): readonly string[] =>
  dump
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => /^Acquire::(https?|ftp)::[^ ]+ ".+";$/i.test(line));

/** Empty where the host has no apt, or one that does not work: the defaults are good enough then. */
const say = async (argv: readonly [string, ...string[]], signal: AbortSignal): Promise<string> => {
  try {
    return (await runTool(argv, { signal, env: { LC_ALL: 'C' } })).stdout;
  } catch (error) {
    if (error instanceof ExecError) return '';
    throw error;
  }
};

export const hostSources = async (
  suite: string,
  signal: AbortSignal,
): Promise<{ readonly sources: readonly string[]; readonly aptOptions: readonly string[] }> => {
  const targets = await say(['apt-get', 'indextargets', '--format', FORMAT, 'Created-By: Packages'], signal);
  const dump = await say(['apt-config', 'dump'], signal);
  return { sources: sourcesFor(suite, targets), aptOptions: transportOptions(dump) };
};

/**
 * A builder in memory, for tests of what uses one. `before` runs ahead of a build, so that a test can hold it up or let
 * it fail; `builds` counts those that were begun.
 */
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { BuildRequest, BuiltFile, ImageBuilder } from '../pool.ts';

export class FakeImageBuilder implements ImageBuilder {
  readonly #finished: (path: string) => void;
  /** Directories in which something lies. */
  readonly places = new Map<string, 'half' | 'finished'>();
  /** Suites of the builds that were begun, in order. */
  readonly builds: string[] = [];
  before: (work: Work) => Promise<void> | void = () => undefined;
  /** Why this host cannot build, if it cannot. */
  unbuildable: string | undefined;

  /** `finished` is told the path of each file that was built. */
  constructor(finished: (path: string) => void) {
    this.#finished = finished;
  }

  async refuseUnbuildable(_recipe: BuildRequest['recipe'], signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.unbuildable !== undefined) throw new RoostError('Unsupported', this.unbuildable);
  }

  async build({ suite, directory }: BuildRequest, work: Work): Promise<BuiltFile> {
    const result: BuiltFile = { path: `${directory}/disk.raw`, format: 'raw' };
    work.signal.throwIfAborted();
    if (this.places.get(directory) === 'finished') return result;
    this.builds.push(suite);
    this.places.set(directory, 'half');
    work.progress({ done: 0, total: 100, unit: 'percent' });
    await this.before(work);
    work.signal.throwIfAborted();
    this.places.set(directory, 'finished');
    this.#finished(result.path);
    return result;
  }

  clear(directory: string): Promise<void> {
    this.places.delete(directory);
    return Promise.resolve();
  }
}

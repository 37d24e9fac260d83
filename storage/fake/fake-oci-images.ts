/**
 * OCI images in memory, for tests of what uses them. Images are declared by reference or path with `offer`. `before` runs
 * ahead of each step, so that a test can hold it up or let it fail; `steps` has those that were begun.
 */
import type { Work } from '../../lib/work.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { OciFacts } from '../../protocol/oci.ts';
import type { BuiltFile, OciImages, OciOrigin, OciRequest } from '../pool.ts';

export class FakeOciImages implements OciImages {
  readonly #finished: (path: string) => void;
  readonly #offered = new Map<string, string>();
  readonly #resolved = new Map<string, OciFacts>();
  readonly #fetched = new Set<string>();
  readonly #merged = new Set<string>();
  readonly steps: string[] = [];
  /** Where each was to come from, with what is secret in it. */
  readonly origins: OciOrigin[] = [];
  before: (step: 'resolve' | 'fetch' | 'merge', work: Work, request: OciRequest) => Promise<void> | void =
    () => undefined;
  /** Why this host cannot make disks of images, if it cannot. */
  unmergeable: string | undefined;

  /** `finished` is told the path of each disk. */
  constructor(finished: (path: string) => void) {
    this.#finished = finished;
  }

  /** Makes a reference, whole, or a path mean an image; the digest is that of its manifest. */
  offer(name: string, digest: string): void {
    this.#offered.set(name, digest);
  }

  async refuseUnmergeable(): Promise<void> {
    if (this.unmergeable !== undefined) throw new RoostError('Unsupported', this.unmergeable);
  }

  async resolve(request: OciRequest, work: Work): Promise<OciFacts> {
    const { from, directory, platform } = request;
    const known = this.#resolved.get(directory);
    if (known) return known;
    await this.#begin('resolve', request, work);
    const name = from.kind === 'registry' ? from.reference : from.path;
    const digest = this.#offered.get(name);
    if (digest === undefined) throw new RoostError('NotFound', `There is no image ${name}`);
    const reference = from.reference === undefined ? {} : { reference: from.reference };
    const facts = { digest, platform, layers: 1, ...reference };
    this.#resolved.set(directory, facts);
    return facts;
  }

  async fetch(request: OciRequest, work: Work): Promise<void> {
    if (this.#fetched.has(request.directory)) return;
    await this.#begin('fetch', request, work);
    work.progress({ done: 0, total: 1, unit: 'bytes', message: 'Downloading' });
    this.#fetched.add(request.directory);
  }

  async merge(request: OciRequest, work: Work): Promise<BuiltFile & { readonly layout: string }> {
    const { directory } = request;
    const result = { path: `${directory}/disk`, format: 'raw', layout: `${directory}/oci` } as const;
    if (this.#merged.has(directory)) return result;
    await this.#begin('merge', request, work);
    this.#merged.add(directory);
    this.#finished(result.path);
    return result;
  }

  async #begin(step: 'resolve' | 'fetch' | 'merge', request: OciRequest, work: Work): Promise<void> {
    work.signal.throwIfAborted();
    this.steps.push(step);
    this.origins.push(request.from);
    await this.before(step, work, request);
    work.signal.throwIfAborted();
  }
}

/** Where an image comes from: what each place that has images can be asked for. Nothing that it gives is trusted. */
import type { Work } from '../../lib/work.ts';
import type { Descriptor } from './manifest.ts';

export interface TopDocument {
  readonly bytes: Buffer;
  /** As it was announced, if it was. */
  readonly mediaType: string | undefined;
}

export interface ImageOrigin extends AsyncDisposable {
  /** The manifest or index that the reference means. */
  top(work: Work): Promise<TopDocument>;
  /** Puts a blob or manifest of at most the announced size into a new file below the directory; gives its path. */
  blob(descriptor: Descriptor, isManifest: boolean, work: Work): Promise<string>;
}

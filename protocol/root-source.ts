/** What storage yields and a driver of containers consumes: a root file system as the image under it and what is written on top. */
import type { BlockSource } from './block-source.ts';

export interface RootSource {
  /**
   * Absolute path of a directory with `upper`, what the guest wrote, with owners as it sees them, and `work`, overlayfs'
   * own: both on one file system, of root, and out of reach of everybody else.
   */
  readonly directory: string;
  /** A squashfs; read-only, and shared by all guests that were made of it. */
  readonly image: BlockSource;
  /**
   * Absolute path of the directory with what is in the image, for a driver that takes that in its place; shared and read-only as
   * well. It is there once the image was unpacked.
   */
  readonly tree?: string;
}

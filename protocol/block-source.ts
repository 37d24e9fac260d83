/** What storage yields and a driver consumes: a disk as a chain of files, every link named, so that no header is believed. */
export interface BlockSource {
  readonly format: 'qcow2' | 'raw';
  /** Absolute path of the file. */
  readonly path: string;
  readonly readOnly: boolean;
  /** Virtual size. */
  readonly sizeBytes: number;
  readonly backing?: BlockSource;
}

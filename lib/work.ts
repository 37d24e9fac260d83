/** What a piece of long work gets from its owner: when to stop, and where to tell how far it is and what came of it. */
export interface Progress {
  readonly done: number;
  readonly total?: number;
  readonly unit: 'bytes' | 'steps' | 'percent';
  /** Of the unit, lately. */
  readonly ratePerSecond?: number;
  readonly message?: string;
}

export interface Work {
  readonly signal: AbortSignal;
  readonly progress: (progress: Progress) => void;
  /** For whoever asked: the work is done, and this is not as they may think. */
  readonly warn?: (text: string) => void;
}

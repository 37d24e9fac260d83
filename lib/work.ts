/** What a piece of long work gets from its owner: when to stop, and where to tell how far it is. */
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
}

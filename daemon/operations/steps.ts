/** What an operation consists of. Every step may run twice and knows its undo, which may run twice too. */
import type { Work } from '../../lib/work.ts';

export interface Step {
  readonly name: string;
  do(work: Work): Promise<void> | void;
  /** Takes back what `do` made, whether it got to its end or not. */
  undo?(): Promise<void> | void;
  /**
   * Of a step with no way back: whether it is done, by what is recorded. It is asked when the step failed; one that is
   * done has not failed, because nothing is left to ask for again.
   */
  isDone?(): boolean;
}

/**
 * Told of each place in an operation at which the daemon might die; tests let it die there. The operation waits for a
 * promise it returns.
 */
export type StepObserver = (place: {
  readonly kind: string;
  readonly step: string;
  readonly moment: 'before' | 'after' | 'before-undo' | 'after-undo';
}) => void | Promise<void>;

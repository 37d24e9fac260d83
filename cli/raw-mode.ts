/** The terminal in raw mode, where each key goes on as it is, and back: also when this process ends by itself meanwhile. */
import type { Io } from './io.ts';

/** What it returns puts the terminal back; may be called twice. Nothing happens where there is no terminal. */
export const enterRawMode = ({ stdin }: Io): (() => void) => {
  if (stdin.isTTY !== true || stdin.setRawMode === undefined) return () => undefined;
  const restore = (): void => {
    process.off('exit', restore);
    stdin.setRawMode?.(false);
  };
  stdin.setRawMode(true);
  process.once('exit', restore);
  return restore;
};

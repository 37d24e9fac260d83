/** Whether a module is the program that was run, and not one that was imported. */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const isMain = (url: string): boolean =>
  process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url);

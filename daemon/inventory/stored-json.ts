/** JSON as a table keeps it. Errors: DataLoss for a text that is none: whoever wrote it, it was not this program. */
import { RoostError } from '../../protocol/errors.ts';

export const storedJson = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new RoostError('DataLoss', 'The inventory is damaged: a value in it is no JSON', {
      hint: 'Guests run on. Stop the daemon: its next start says what there is to put back.',
      cause: error,
    });
  }
};

/** What runs in a guest: a program of a container image, under the init that Roost gives it, or a system of its own. Pure. */
import type { StoredSpec } from '../inventory/guest-table.ts';

export const runsProgram = ({ program }: Pick<StoredSpec, 'program'>): boolean => program !== undefined;

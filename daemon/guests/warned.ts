/** What was accepted, with what its user should know of it. */
import type { Accepted } from '../../protocol/operation.ts';

export type Warned = Accepted & { readonly warnings?: string[] };
export const warned = (accepted: Accepted, warnings: string[]): Warned =>
  warnings.length === 0 ? accepted : { ...accepted, warnings };

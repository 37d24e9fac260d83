/**
 * The form of a command's declaration. From it come static types, validation, introspection, the reference and the
 * command line tool; nothing about a command is said anywhere else.
 */
import type { z } from 'zod';
import type { Role } from './types.ts';

export interface CommandDeclaration<
  N extends string = string,
  A extends z.ZodType = z.ZodType,
  R extends z.ZodType = z.ZodType,
> {
  /** Kebab-case, subject then verb; queries `query-…`. */
  readonly name: N;
  /** One line, imperative. */
  readonly summary: string;
  /** What a caller has to know besides: rules, units, errors. */
  readonly description?: string;
  readonly role: Role;
  /**
   * `query` answers from memory or the inventory and changes nothing; `change` is journaled as an operation;
   * `session` concerns this connection only; `wait` may take long and is run beside other commands of its connection.
   */
  readonly nature: 'query' | 'change' | 'session' | 'wait';
  /** Version of Roost that brought it. */
  readonly since: string;
  readonly arguments: A;
  readonly returns: R;
}

export const defineCommand = <const N extends string, A extends z.ZodType, R extends z.ZodType>(
  declaration: CommandDeclaration<N, A, R>,
): CommandDeclaration<N, A, R> => declaration;

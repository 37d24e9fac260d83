/** Spawns a program that is found by its name, with the environment of this process. */
import { openSync } from 'node:fs';
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { type Child, spawnChild } from './child.ts';

/** Where programs were found; one that has moved is looked for again. */
const found = new Map<string, string>();

const isProgram = (path: string): Promise<boolean> =>
  access(path, constants.X_OK).then(
    () => true,
    () => false,
  );

/** The path of a program by its name in PATH; the name itself where there is none, for the failure to name. */
const locate = async (program: string): Promise<string> => {
  if (program.includes('/')) return program;
  const known = found.get(program);
  if (known !== undefined) return known;
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(directory, program);
    if (!(await isProgram(path))) continue;
    found.set(program, path);
    return path;
  }
  return program;
};

const environment = (further: Readonly<Record<string, string>> | undefined): readonly string[] =>
  Object.entries({ ...process.env, ...further }).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );

let nothing: number | undefined;

/** A descriptor of /dev/null to read from, for every child that is given no input; opened once. */
export const emptyInput = (): number => {
  nothing ??= openSync('/dev/null', 'r');
  return nothing;
};

/**
 * The child has the i-th of the descriptors as its descriptor i; they have to stay open until it is done. Errors:
 * NativeError of posix_spawn(3), ENOENT where there is no such program or directory; then nothing runs.
 */
export const spawnProgram = async (
  argv: readonly [string, ...string[]],
  descriptors: readonly number[],
  { env, cwd }: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string } = {},
): Promise<Child> => {
  try {
    return await spawnChild({
      program: await locate(argv[0]),
      argv,
      env: environment(env),
      cwd: cwd ?? process.cwd(),
      descriptors,
    });
  } catch (error) {
    found.delete(argv[0]);
    throw error;
  }
};

/** Reads the modules of an unpacked kernel package: those that are wanted, and what they need. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describeModule, type KernelModule, loadOrder, moduleName } from './kernel-modules.ts';

/**
 * The descriptions of the wanted modules and of all they need, in an order in which they can be loaded. `folder` is
 * `/lib/modules/VERSION` of the package. Throws an Error for a module that it does not have.
 */
export async function readModules(
  folder: string,
  wanted: readonly string[],
): Promise<readonly KernelModule[]> {
  const paths = await readdir(folder, { recursive: true });
  const pathOf = new Map(
    paths.filter((path) => path.endsWith('.ko')).map((path) => [moduleName(path), path]),
  );
  const found = new Map<string, KernelModule>();
  const queue = wanted.map(moduleName);
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const path = pathOf.get(name);
    if (path === undefined || found.has(name)) continue;
    const module = describeModule(path, await readFile(join(folder, path)));
    found.set(name, module);
    queue.push(...module.dependsOn);
  }
  return loadOrder([...found.values()], wanted);
}

/** Names of the modules that are a part of the kernel itself and need no file (modules.builtin). */
export async function builtinModules(folder: string): Promise<ReadonlySet<string>> {
  const text = await readFile(join(folder, 'modules.builtin'), 'utf8');
  return new Set(
    text
      .split('\n')
      .filter((line) => line !== '')
      .map(moduleName),
  );
}

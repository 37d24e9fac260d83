/**
 * Reads what a kernel module says about itself and computes which modules must be loaded, in which order.
 *
 * Debian's kernel package carries no modules.dep: depmod makes it when the package is installed, and ours is
 * only unpacked. The same facts stand in each module's `.modinfo` section, so they are taken from there.
 * Everything here is pure.
 */

/** One module as the kernel knows it. */
export interface KernelModule {
  /** The kernel's own name, always with underscores: `virtio_rng` for the file `virtio-rng.ko`. */
  readonly name: string;
  /** Path below `/lib/modules/VERSION`, as in modules.dep: `kernel/drivers/virtio/virtio.ko`. */
  readonly path: string;
  /** Names of the modules whose symbols this one uses. */
  readonly dependsOn: readonly string[];
}

/** File names write either `-` or `_`; the kernel knows only `_`. */
export function moduleName(fileOrName: string): string {
  const base = fileOrName.slice(fileOrName.lastIndexOf('/') + 1);
  return base.replace(/\.ko$/, '').replaceAll('-', '_');
}

/**
 * The `key=value` strings of an ELF64 little-endian module's `.modinfo` section (elf(5)).
 * Throws an Error if the bytes are no such file or have no such section.
 */
export function readModinfo(elf: Buffer): ReadonlyMap<string, string> {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) {
    throw new Error('not a 64-bit little-endian ELF file; is the module compressed?');
  }
  const tableOffset = Number(elf.readBigUInt64LE(0x28));
  const entryBytes = elf.readUInt16LE(0x3a);
  const count = elf.readUInt16LE(0x3c);
  const section = (index: number) => {
    const at = tableOffset + index * entryBytes;
    const offset = Number(elf.readBigUInt64LE(at + 0x18));
    const size = Number(elf.readBigUInt64LE(at + 0x20));
    return { nameOffset: elf.readUInt32LE(at), bytes: elf.subarray(offset, offset + size) };
  };
  const names = section(elf.readUInt16LE(0x3e)).bytes;
  for (let index = 0; index < count; index += 1) {
    const { nameOffset, bytes } = section(index);
    if (names.toString('latin1', nameOffset, names.indexOf(0, nameOffset)) === '.modinfo') {
      return parseStrings(bytes);
    }
  }
  throw new Error('no .modinfo section');
}

function parseStrings(bytes: Buffer): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const text of bytes.toString('latin1').split('\0')) {
    const equals = text.indexOf('=');
    if (equals > 0 && !values.has(text.slice(0, equals))) {
      values.set(text.slice(0, equals), text.slice(equals + 1));
    }
  }
  return values;
}

/** Makes a module's record from its path and its bytes. */
export function describeModule(path: string, elf: Buffer): KernelModule {
  const depends = readModinfo(elf).get('depends') ?? '';
  return {
    name: moduleName(path),
    path,
    dependsOn: depends
      .split(',')
      .filter((name) => name !== '')
      .map(moduleName),
  };
}

/**
 * The wanted modules and all they need, each after everything it depends on, none twice.
 * Throws an Error that names the missing module, or the cycle.
 */
export function loadOrder(
  available: readonly KernelModule[],
  wanted: readonly string[],
): readonly KernelModule[] {
  const byName = new Map(available.map((module) => [module.name, module]));
  const ordered: KernelModule[] = [];
  const state = new Map<string, 'visiting' | 'done'>();

  const visit = (name: string, neededBy: readonly string[]): void => {
    if (state.get(name) === 'done') return;
    if (state.get(name) === 'visiting') {
      throw new Error(`kernel modules depend on each other in a circle: ${[...neededBy, name].join(' -> ')}`);
    }
    const module = byName.get(name);
    if (module === undefined) {
      const because = neededBy.length > 0 ? `, which ${neededBy.at(-1)} needs` : '';
      throw new Error(`the kernel package has no module ${name}${because}`);
    }
    state.set(name, 'visiting');
    for (const dependency of module.dependsOn) visit(dependency, [...neededBy, name]);
    state.set(name, 'done');
    ordered.push(module);
  };

  for (const name of wanted) visit(moduleName(name), []);
  return ordered;
}

/**
 * modules.dep as modprobe reads it (modules.dep(5)): one line a module, then everything it needs, directly or
 * not, nearest first.
 */
export function modulesDep(modules: readonly KernelModule[]): string {
  const lines = modules.map((module) => {
    const needed = loadOrder(modules, [module.name]).slice(0, -1).reverse();
    return `${module.path}:${needed.map((dependency) => ` ${dependency.path}`).join('')}\n`;
  });
  return lines.join('');
}

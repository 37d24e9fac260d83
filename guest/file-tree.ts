/**
 * A tree of files in memory: what an initramfs or a root file system will contain, before it has a form.
 * Every entry belongs to root; nothing of the builder's own user or umask gets in.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** One entry. `path` is relative to the root, without a leading slash; `mode` holds permission bits only. */
export type TreeEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly content: Buffer }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | {
      readonly kind: 'characterDevice';
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

export function file(path: string, content: Buffer | string, mode = 0o644): TreeEntry {
  return { kind: 'file', path, mode, content: Buffer.from(content) };
}

export function symlink(path: string, target: string): TreeEntry {
  return { kind: 'symlink', path, target };
}

export function directory(path: string, mode = 0o755): TreeEntry {
  return { kind: 'directory', path, mode };
}

/**
 * Reads a folder of checked-in files. Modes come from the content, not from the checkout: what begins with `#!`
 * is executable.
 */
export async function readTree(folder: string, below = ''): Promise<readonly TreeEntry[]> {
  const entries: TreeEntry[] = [];
  for (const item of await readdir(join(folder, below), { withFileTypes: true })) {
    const path = join(below, item.name);
    if (item.isDirectory()) {
      entries.push(...(await readTree(folder, path)));
    } else {
      const content = await readFile(join(folder, path));
      entries.push(file(path, content, content.toString('latin1', 0, 2) === '#!' ? 0o755 : 0o644));
    }
  }
  return entries;
}

/**
 * The entries sorted so that every directory comes before what it holds, with directories that nobody named
 * added (mode 0755). A path given twice is a mistake in a recipe and throws.
 */
export function completeTree(entries: readonly TreeEntry[]): readonly TreeEntry[] {
  const byPath = new Map<string, TreeEntry>();
  for (const entry of entries) {
    if (byPath.has(entry.path)) throw new Error(`two entries of the tree have the path ${entry.path}`);
    byPath.set(entry.path, entry);
  }
  for (const { path } of entries) {
    for (let slash = path.indexOf('/'); slash !== -1; slash = path.indexOf('/', slash + 1)) {
      const parent = path.slice(0, slash);
      if (!byPath.has(parent)) byPath.set(parent, directory(parent));
    }
  }
  return [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

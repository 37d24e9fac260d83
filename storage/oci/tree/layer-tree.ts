/**
 * The tree that layers make when one is laid on the other, as names and attributes alone; of the bytes it knows where
 * they are. Pure. Source: OCI image specification 1.1, layer.md ("Applying Changesets", "Whiteouts").
 *
 * Rules:
 * - A layer's whiteouts act on the layers below it, never on its own entries, whichever comes first in it.
 * - The way to an entry follows symbolic links as a chroot would: an absolute target, and `..`, end at the root of the
 *   tree. Thus a layer that writes to lib/x where lib became a link to usr/lib does what it does in every engine.
 * - A directory over a directory changes its attributes and keeps what is in it; anything else over anything takes its
 *   place with all that was in it.
 * - A hard link is the same file as its target, in whichever layer that came, and stays when the target goes.
 * - A name that is absolute, or holds `..`, is refused: no engine writes one, and guessing what it means helps nobody.
 */
import { RoostError } from '../../../protocol/errors.ts';
import type { TarEntry } from './tar-entries.ts';
import type { FileType } from './tar-header.ts';

/** A file's bytes, in the archive of a layer. */
export interface LayerRange {
  readonly layer: number;
  /** Undefined for zeros. */
  readonly offset: number | undefined;
  readonly length: number;
}

export interface FileAttributes {
  readonly type: FileType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  /** Of a symbolic link. */
  readonly target: string;
  readonly sizeBytes: number;
  readonly data: readonly LayerRange[];
  readonly major: number;
  readonly minor: number;
  readonly xattrs: readonly (readonly [string, string])[];
}

/** One name of the tree. `sameAs` names an earlier one that is the same file. */
export interface TreeEntry {
  /** Without a slash at its beginning; empty for the root. */
  readonly path: string;
  readonly file: FileAttributes;
  readonly sameAs?: string | undefined;
}

interface Directory {
  readonly kind: 'directory';
  readonly parent: Directory | undefined;
  file: FileAttributes;
  readonly children: Map<string, Node>;
}

interface Leaf {
  readonly kind: 'leaf';
  readonly file: FileAttributes;
}

type Node = Directory | Leaf;

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** Of aufs, which kept its own records under such names. */
const AUFS = '.wh..wh.';

/** As Linux: ELOOP. */
const MAX_LINKS = 40;
/** NAME_MAX of Linux. */
const MAX_NAME_BYTES = 255;

/** Where a layer names what no layer says anything of. */
const impliedDirectory: FileAttributes = {
  type: 'directory',
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: 0,
  target: '',
  sizeBytes: 0,
  data: [],
  major: 0,
  minor: 0,
  xattrs: [],
};

const readable = (path: string): string => JSON.stringify(path.slice(0, 256));

const refuse = (flaw: string, path: string, what: string): RoostError =>
  new RoostError('InvalidArgument', `The image ${what}: ${readable(path)}`, {
    data: { flaw, path: path.slice(0, 256) },
    hint: 'The image is malformed or hostile: build it again, or do not trust its source.',
  });

/** Parts of a name in an archive; none for the root. Errors: InvalidArgument. */
export const partsOf = (name: string): readonly string[] => {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (name.startsWith('/') && parts.length > 0) throw refuse('absolute-path', name, 'holds an absolute path');
  if (parts.includes('..')) throw refuse('path-outside', name, "holds a path with '..'");
  if (parts.some((part) => part.length > MAX_NAME_BYTES))
    throw refuse('name-too-long', name, 'holds a name of more than 255 bytes');
  return parts;
};

const rootDirectory = (): Directory => ({
  kind: 'directory',
  parent: undefined,
  file: impliedDirectory,
  children: new Map(),
});

/**
 * What a name like .wh.x says: `whiteouts`, that of a layer, that x below it is hidden · `names`, that of any other
 * archive, nothing.
 */
export type WhiteoutMeaning = 'whiteouts' | 'names';

export class LayerTree {
  readonly #root = rootDirectory();
  readonly #meaning: WhiteoutMeaning;
  #layers = 0;

  constructor(meaning: WhiteoutMeaning = 'whiteouts') {
    this.#meaning = meaning;
  }

  /** Lays one more layer on top. */
  addLayer(entries: readonly TarEntry[]): void {
    const layer = this.#layers;
    this.#layers += 1;
    const additions: (readonly [readonly string[], TarEntry])[] = [];
    for (const entry of entries) {
      const parts = partsOf(entry.name);
      const isWhiteout = this.#meaning === 'whiteouts' && parts.at(-1)?.startsWith(WHITEOUT) === true;
      if (isWhiteout) this.#whiteOut(parts, entry.name);
      else additions.push([parts, entry]);
    }
    for (const [parts, entry] of additions) this.#add(parts, entry, layer);
  }

  /** The root first, each directory before what is in it, names in the order of their bytes. */
  *entries(): Generator<TreeEntry> {
    const first = new Map<Leaf, string>();
    yield { path: '', file: this.#root.file };
    const waiting: (readonly [string, Node])[] = sorted(this.#root, '');
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [path, node] = next;
      if (node.kind === 'leaf') {
        const sameAs = first.get(node);
        if (sameAs === undefined) first.set(node, path);
        yield { path, file: node.file, sameAs };
        continue;
      }
      yield { path, file: node.file };
      waiting.push(...sorted(node, `${path}/`));
    }
  }

  #whiteOut(parts: readonly string[], name: string): void {
    const last = parts.at(-1) ?? '';
    if (last.startsWith(AUFS) && last !== OPAQUE) return;
    const directory = this.#walk(parts.slice(0, -1), name, false);
    if (last === OPAQUE) {
      directory?.children.clear();
      return;
    }
    const hidden = last.slice(WHITEOUT.length);
    if (hidden === '' || hidden === '.' || hidden === '..')
      throw refuse('whiteout', name, 'holds a whiteout of nothing');
    directory?.children.delete(hidden);
  }

  #add(parts: readonly string[], entry: TarEntry, layer: number): void {
    const name = parts.at(-1);
    if (name === undefined) {
      if (entry.type !== 'directory') throw refuse('root', entry.name, 'has a root that is no directory');
      this.#root.file = attributesOf(entry, entry.type, layer);
      return;
    }
    const parent = this.#walk(parts.slice(0, -1), entry.name, true);
    if (!parent) throw refuse('no-directory', entry.name, 'holds a file below one that is no directory');
    const there = parent.children.get(name);
    if (entry.type === 'link') parent.children.set(name, this.#linked(entry));
    else if (entry.type !== 'directory')
      parent.children.set(name, { kind: 'leaf', file: attributesOf(entry, entry.type, layer) });
    else {
      const file = attributesOf(entry, entry.type, layer);
      if (there?.kind === 'directory') there.file = file;
      else parent.children.set(name, { kind: 'directory', parent, file, children: new Map() });
    }
  }

  /** Errors: InvalidArgument when there is no such file, or it is a directory. */
  #linked(entry: TarEntry): Leaf {
    const { linkName } = entry;
    const parts = partsOf(linkName);
    const directory = this.#walk(parts.slice(0, -1), linkName, false);
    const target = directory?.children.get(parts.at(-1) ?? '');
    if (target?.kind === 'leaf') return target;
    const what = target === undefined ? 'does not exist' : 'is a directory';
    throw refuse('hard-link', linkName, `holds a hard link to what ${what}`);
  }

  /**
   * The directory at a path, through symbolic links. What is missing is made, or gives undefined; so does what is no
   * directory. Errors: InvalidArgument for links without end.
   */
  #walk(parts: readonly string[], name: string, make: boolean): Directory | undefined {
    const ahead = [...parts].reverse();
    let at = this.#root;
    let links = 0;
    for (let part = ahead.pop(); part !== undefined; part = ahead.pop()) {
      if (part === '..') {
        at = at.parent ?? at;
        continue;
      }
      const found = at.children.get(part);
      if (found?.kind === 'directory') {
        at = found;
        continue;
      }
      if (found === undefined) {
        if (!make) return undefined;
        const made: Directory = {
          kind: 'directory',
          parent: at,
          file: impliedDirectory,
          children: new Map(),
        };
        at.children.set(part, made);
        at = made;
        continue;
      }
      if (found.file.type !== 'symlink') return undefined;
      links += 1;
      if (links > MAX_LINKS) throw refuse('link-loop', name, 'holds a path through too many symbolic links');
      const { target } = found.file;
      if (target.startsWith('/')) at = this.#root;
      const further = target.split('/').filter((each) => each !== '' && each !== '.');
      ahead.push(...further.reverse());
    }
    return at;
  }
}

/** What is in a directory, last name first, for taking from the end. */
const sorted = (directory: Directory, prefix: string): (readonly [string, Node])[] =>
  [...directory.children]
    .sort(([one], [other]) => (one < other ? 1 : -1))
    .map(([name, node]) => [`${prefix}${name}`, node] as const);

const attributesOf = (entry: TarEntry, type: FileType, layer: number): FileAttributes => ({
  type,
  mode: type === 'symlink' ? 0o777 : entry.mode,
  uid: entry.uid,
  gid: entry.gid,
  mtime: entry.mtime,
  target: type === 'symlink' ? entry.linkName : '',
  sizeBytes: entry.sizeBytes,
  data: entry.data.map((range) => ({ ...range, layer })),
  major: entry.major,
  minor: entry.minor,
  xattrs: entry.xattrs,
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ArchivePlan } from '../../../../storage/oci/tree/archive-plan.ts';
import { LayerTree, type TreeEntry } from '../../../../storage/oci/tree/layer-tree.ts';
import type { TarEntry } from '../../../../storage/oci/tree/tar-entries.ts';

const entry = (type: TarEntry['type'], name: string, changes: Partial<TarEntry> = {}): TarEntry => ({
  type,
  name,
  linkName: '',
  mode: type === 'directory' ? 0o755 : 0o644,
  uid: 0,
  gid: 0,
  mtime: 0,
  sizeBytes: 0,
  data: [],
  major: 0,
  minor: 0,
  xattrs: [],
  ...changes,
});
const file = (name: string, uid = 0): TarEntry => entry('file', name, { uid });
const folder = (name: string, uid = 0): TarEntry => entry('directory', name, { uid });
const symlink = (name: string, linkName: string): TarEntry => entry('symlink', name, { linkName });
const link = (name: string, linkName: string): TarEntry => entry('link', name, { linkName });

const merged = (...layers: (readonly TarEntry[])[]): readonly TreeEntry[] => {
  const tree = new LayerTree();
  for (const layer of layers) tree.addLayer(layer);
  return [...tree.entries()];
};

/** `path`, a slash for directories, `→` for links, `=` for names of an earlier file, and the owner if it is not 0. */
const names = (...layers: (readonly TarEntry[])[]): readonly string[] =>
  merged(...layers).map(({ path, file: { type, target, uid }, sameAs }) => {
    const kind = type === 'directory' ? '/' : type === 'symlink' ? `→${target}` : '';
    return `${path}${kind}${sameAs === undefined ? '' : `=${sameAs}`}${uid === 0 ? '' : `:${uid}`}`;
  });

describe('layers', () => {
  it.each<[string, readonly (readonly TarEntry[])[], readonly string[]]>([
    ['nothing is a root', [], ['/']],
    ['names are cleaned', [[folder('./'), file('./a'), file('b//c/./d')]], ['/', 'a', 'b/', 'b/c/', 'b/c/d']],
    ['the last of two entries counts', [[file('a', 1), file('a', 2)]], ['/', 'a:2']],
    ['a whiteout hides what is below', [[file('a'), file('b')], [file('.wh.a')]], ['/', 'b']],
    ['but not what is beside it', [[file('a', 1)], [file('a', 2), file('.wh.a')]], ['/', 'a:2']],
    ['a whiteout hides a tree', [[file('a/b/c')], [file('.wh.a')]], ['/']],
    ['a whiteout of nothing is none', [[file('a')], [file('x/.wh.y'), file('a/.wh.y')]], ['/', 'a']],
    [
      'an opaque directory hides what was in it, wherever its mark stands',
      [
        [file('d/a'), file('d/b/c')],
        [folder('d', 5), file('d/new'), file('d/.wh..wh..opq'), file('d/b/new')],
      ],
      ['/', 'd/:5', 'd/b/', 'd/b/new', 'd/new'],
    ],
    [
      'records of aufs are no files',
      [[file('a')], [folder('.wh..wh.plnk'), file('.wh..wh.aufs')]],
      ['/', 'a'],
    ],
    [
      'a directory keeps what is in it',
      [[folder('d', 1), file('d/a')], [folder('d', 2)]],
      ['/', 'd/:2', 'd/a'],
    ],
    ['a file takes the place of a tree', [[file('d/a')], [file('d')]], ['/', 'd']],
    [
      'a directory takes the place of a link',
      [[symlink('d', 'e'), file('e/x')], [folder('d')]],
      ['/', 'd/', 'e/', 'e/x'],
    ],
    [
      'the way follows links of lower layers',
      [[symlink('bin', 'usr/bin'), folder('usr/bin')], [file('bin/x')]],
      ['/', 'bin→usr/bin', 'usr/', 'usr/bin/', 'usr/bin/x'],
    ],
    [
      'links end at the root',
      [
        [symlink('out', '../../../etc'), symlink('abs', '/../etc/./')],
        [file('out/a'), file('abs/b')],
      ],
      ['/', 'abs→/../etc/./', 'etc/', 'etc/a', 'etc/b', 'out→../../../etc'],
    ],
    ['whiteouts follow them, too', [[symlink('l', 'd'), file('d/a')], [file('l/.wh.a')]], ['/', 'd/', 'l→d']],
    ['a link is the same file', [[file('b', 7), link('a', 'b')]], ['/', 'a:7', 'b=a:7']],
    [
      'across layers, and stays when the first goes',
      [[file('a', 7)], [link('b', './a')], [file('.wh.a')]],
      ['/', 'b:7'],
    ],
    ['until it is replaced itself', [[file('a', 7), link('b', 'a')], [file('a', 8)]], ['/', 'a:8', 'b:7']],
    ['also of a symbolic link', [[symlink('s', 't'), link('h', 's')]], ['/', 'h→t', 's→t=h']],
    [
      'bytes decide the order',
      [[file('b'), file('a/z'), file('a.x'), file('\xff'), file('B')]],
      ['/', 'B', 'a/', 'a/z', 'a.x', 'b', '\xff'],
    ],
  ])('%s', (_title, layers, expected) => {
    expect(names(...layers)).toEqual(expected);
  });

  it.each([
    ['an absolute path', [file('/etc/passwd')]],
    ['a path out of the root', [file('a/../../etc/passwd')]],
    ['a path with ..', [file('a/../b')]],
    ['a root that is a file', [file('.')]],
    ['a root that is a link', [symlink('./', '/etc')]],
    ['a file below a file', [file('a'), file('a/b')]],
    ['a hard link to nothing', [link('a', 'b')]],
    ['a hard link to a directory', [folder('d'), link('a', 'd')]],
    ['a hard link out of the root', [file('b'), link('a', '../b')]],
    ['a hard link by an absolute path', [file('b'), link('a', '/b')]],
    ['a whiteout of a directory itself', [file('d/.wh..')]],
    ['a whiteout of its parent', [file('d/.wh...')]],
    ['a whiteout without a name', [file('.wh.')]],
    ['a way through links without end', [symlink('a', 'b'), symlink('b', 'a'), file('a/x')]],
    ['a name of 256 bytes', [file('x'.repeat(256))]],
  ])('with %s are refused', (_title, layer) => {
    expect(() => merged(layer)).toThrow(expect.objectContaining({ class: 'InvalidArgument' }));
  });

  it('may have a root of their own', () => {
    const [root] = merged([entry('directory', './', { mode: 0o711, uid: 5 })]);
    expect(root).toMatchObject({ path: '', file: { mode: 0o711, uid: 5 } });
    expect(merged([folder('/', 3)])[0]).toMatchObject({ file: { uid: 3 } });
  });

  it('make what a plain map of paths makes', () => {
    const part = fc.constantFrom('a', 'b', 'c');
    const path = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
    const change = fc.oneof(
      fc.record({ kind: fc.constant('file' as const), path, uid: fc.nat(9) }),
      fc.record({ kind: fc.constant('directory' as const), path, uid: fc.nat(9) }),
      fc.record({ kind: fc.constant('whiteout' as const), path, uid: fc.constant(0) }),
      fc.record({ kind: fc.constant('opaque' as const), path, uid: fc.constant(0) }),
    );
    fc.assert(
      fc.property(fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 4 }), (layers) => {
        const model = new Map<string, string>();
        const drop = (gone: (name: string) => boolean): void => {
          for (const name of model.keys()) if (gone(name)) model.delete(name);
        };
        const parents = (of: string): readonly string[] =>
          of
            .split('/')
            .slice(0, -1)
            .map((_, index, all) => all.slice(0, index + 1).join('/'));
        const isFile = (name: string): boolean => model.get(name)?.startsWith('f') === true;
        const given: TarEntry[][] = [];
        for (const layer of layers) {
          const taken: TarEntry[] = [];
          for (const { kind, path: at } of layer) {
            const slash = at.lastIndexOf('/') + 1;
            const within = (name: string): boolean => name.startsWith(`${at}/`);
            if (kind === 'whiteout') {
              taken.push(file(`${at.slice(0, slash)}.wh.${at.slice(slash)}`));
              drop((name) => name === at || within(name));
            }
            if (kind === 'opaque') {
              taken.push(file(`${at}/.wh..wh..opq`));
              drop(within);
            }
          }
          for (const { kind, path: at, uid } of layer) {
            if ((kind !== 'file' && kind !== 'directory') || parents(at).some(isFile)) continue;
            taken.push(kind === 'file' ? file(at, uid) : folder(at, uid));
            for (const parent of parents(at)) if (!model.has(parent)) model.set(parent, 'd0');
            if (kind === 'file' || isFile(at)) drop((name) => name === at || name.startsWith(`${at}/`));
            model.set(at, `${kind === 'file' ? 'f' : 'd'}${uid}`);
          }
          given.push(taken);
        }
        const found = merged(...given)
          .slice(1)
          .map(({ path: at, file: { type, uid } }) => [at, `${type === 'file' ? 'f' : 'd'}${uid}`]);
        expect(Object.fromEntries(found)).toEqual(Object.fromEntries(model));
      }),
    );
  });
});

describe('the plan', () => {
  const records = (plan: Buffer): readonly (readonly [bigint, bigint, bigint])[] =>
    Array.from({ length: plan.length / 24 }, (_, index) => [
      BigInt.asIntN(64, plan.readBigUInt64LE(index * 24)),
      plan.readBigUInt64LE(index * 24 + 8),
      plan.readBigUInt64LE(index * 24 + 16),
    ]);

  it('names headers, bytes of layers and zeros in their order', () => {
    const tree = merged([
      entry('file', 'a', { sizeBytes: 700, data: [{ offset: 512, length: 700 }] }),
      link('b', 'a'),
      entry('file', 'c', {
        sizeBytes: 1000,
        data: [
          { offset: undefined, length: 600 },
          { offset: 4096, length: 400 },
        ],
      }),
    ]);
    const plan = new ArchivePlan();
    const { headers, plan: bytes } = plan.piece(tree.slice(1));
    expect(headers).toHaveLength(3 * 512);
    expect(records(bytes)).toEqual([
      [0n, 0n, 512n],
      [1n, 512n, 700n],
      [-1n, 0n, 324n],
      [0n, 512n, 1024n],
      [-1n, 0n, 600n],
      [1n, 4096n, 400n],
      [-1n, 0n, 24n],
    ]);
    expect(records(plan.end())).toEqual([[-1n, 0n, 1024n]]);
  });

  it('keeps times that squashfs can keep, and attributes of its kinds, the last of each', () => {
    const xattrs = [
      ['user.a', '1'],
      ['system.posix_acl_access', 'x'],
      ['user.a', '2'],
      ['security.capability', '\0\xff'],
    ] as const;
    const [, one] = merged([entry('file', 'a', { mtime: -5, xattrs })]);
    const text = one ? new ArchivePlan().piece([one]).headers.toString('latin1') : '';
    expect(text).toContain('SCHILY.xattr.user.a=2\n');
    expect(text).toContain('SCHILY.xattr.security.capability=\0\xff\n');
    expect(text).not.toContain('posix_acl');
    expect(text).not.toContain('user.a=1');
    expect(text.slice(-512 + 136, -512 + 147)).toBe('00000000000');
  });
});

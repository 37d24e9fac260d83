import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  describeModule,
  type KernelModule,
  loadOrder,
  moduleName,
  modulesDep,
  readModinfo,
} from '../../guest/kernel-modules.ts';

function module(name: string, ...dependsOn: string[]): KernelModule {
  return { name, path: `kernel/${name}.ko`, dependsOn };
}

/** An ELF64 file with the two sections that matter: .modinfo and the names. */
function elfWithModinfo(text: string): Buffer {
  const info = Buffer.from(text, 'latin1');
  const names = Buffer.from('\0.modinfo\0.shstrtab\0');
  const header = Buffer.alloc(64);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
  const sectionHeaders = Buffer.alloc(3 * 64);
  const describeSection = (index: number, nameOffset: number, offset: number, size: number) => {
    sectionHeaders.writeUInt32LE(nameOffset, index * 64);
    sectionHeaders.writeBigUInt64LE(BigInt(offset), index * 64 + 0x18);
    sectionHeaders.writeBigUInt64LE(BigInt(size), index * 64 + 0x20);
  };
  describeSection(1, 1, 64, info.length);
  describeSection(2, 10, 64 + info.length, names.length);
  header.writeBigUInt64LE(BigInt(64 + info.length + names.length), 0x28);
  header.writeUInt16LE(64, 0x3a);
  header.writeUInt16LE(3, 0x3c);
  header.writeUInt16LE(2, 0x3e);
  return Buffer.concat([header, info, names, sectionHeaders]);
}

describe('readModinfo', () => {
  it('reads the strings of the section', () => {
    const info = readModinfo(elfWithModinfo('license=GPL\0depends=virtio,virtio_ring\0name=virtio_blk\0'));
    expect(Object.fromEntries(info)).toEqual({
      license: 'GPL',
      depends: 'virtio,virtio_ring',
      name: 'virtio_blk',
    });
  });

  it('refuses what is no ELF file, such as a compressed module', () => {
    expect(() => readModinfo(Buffer.from('\xfd7zXZ\0'.padEnd(100), 'latin1'))).toThrow('compressed');
  });
});

describe('describeModule', () => {
  it('takes the name from the file and the dependencies from the module', () => {
    const elf = elfWithModinfo('depends=net-failover,virtio\0');
    expect(describeModule('kernel/drivers/net/virtio-net.ko', elf)).toEqual({
      name: 'virtio_net',
      path: 'kernel/drivers/net/virtio-net.ko',
      dependsOn: ['net_failover', 'virtio'],
    });
  });

  it('knows a module that needs none', () => {
    expect(describeModule('kernel/a.ko', elfWithModinfo('depends=\0')).dependsOn).toEqual([]);
  });
});

describe('loadOrder', () => {
  const available = [
    module('virtio', 'virtio_ring'),
    module('virtio_ring'),
    module('virtio_net', 'virtio_ring', 'virtio', 'net_failover'),
    module('net_failover', 'failover'),
    module('failover'),
    module('unrelated'),
  ];

  it('puts every module after what it needs and leaves out the rest', () => {
    const names = loadOrder(available, ['virtio-net']).map(({ name }) => name);
    expect(names).toEqual(['virtio_ring', 'virtio', 'failover', 'net_failover', 'virtio_net']);
  });

  it('names a missing module and who needs it', () => {
    expect(() => loadOrder([module('a', 'b')], ['a'])).toThrow('no module b, which a needs');
  });

  it('names a circle', () => {
    const circle = [module('a', 'b'), module('b', 'c'), module('c', 'a')];
    expect(() => loadOrder(circle, ['a'])).toThrow('a -> b -> c -> a');
  });

  it('holds for any graph without a circle', () => {
    const graph = fc
      .array(fc.array(fc.nat(), { maxLength: 4 }), { minLength: 1, maxLength: 20 })
      .map((rows) =>
        rows.map((row, index) =>
          module(`m${index}`, ...(index === 0 ? [] : row.map((value) => `m${value % index}`))),
        ),
      );
    fc.assert(
      fc.property(graph, (modules) => {
        const ordered = loadOrder(
          modules,
          modules.map(({ name }) => name),
        ).map(({ name }) => name);
        expect(ordered.toSorted()).toEqual(modules.map(({ name }) => name).toSorted());
        for (const { name, dependsOn } of modules) {
          for (const needed of dependsOn) expect(ordered.indexOf(needed)).toBeLessThan(ordered.indexOf(name));
        }
      }),
    );
  });
});

describe('modulesDep', () => {
  it('lists for each module all it needs, nearest first', () => {
    expect(modulesDep(loadOrder([module('a', 'b'), module('b', 'c'), module('c')], ['a']))).toBe(
      'kernel/c.ko:\nkernel/b.ko: kernel/c.ko\nkernel/a.ko: kernel/b.ko kernel/c.ko\n',
    );
  });
});

describe('moduleName', () => {
  it.each([
    ['kernel/drivers/char/hw_random/virtio-rng.ko', 'virtio_rng'],
    ['virtio_blk', 'virtio_blk'],
  ])('%s is %s', (path, name) => expect(moduleName(path)).toBe(name));
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pinContainer, requireContainer } from '../../../drivers/lxc/container-machine.ts';
import { type GuestSpec, type GuestSpecInput, guestSpec } from '../../../protocol/guest.ts';
import type { MacAddress } from '../../../protocol/types.ts';

const specOf = (changes: Partial<GuestSpecInput> = {}): GuestSpec =>
  guestSpec.parse({ name: 'web1', driver: 'lxc', boot: { kind: 'root', image: 'debian' }, ...changes });

const macOf = (number: number): MacAddress =>
  `52:54:00:00:00:${number.toString(16).padStart(2, '0')}` as MacAddress;
const nicsOf = (names: readonly string[]): GuestSpec['nics'] =>
  names.map((name, index) => ({ name, network: 'default', mac: macOf(index) }));
const specWith = (names: readonly string[]): GuestSpec => ({ ...specOf(), nics: nicsOf(names) });

describe('a container', () => {
  it.each<[string, Partial<GuestSpecInput>]>([
    ['another machine', { machine: 'pc' }],
    ['a machine of a version', { machine: 'pc-q35-7.2' }],
    ['a microVM', { machine: 'microvm' }],
    ['disks', { disks: [{ sizeBytes: 1024 ** 2 }] }],
    ['CD-ROM drives', { cdroms: [{}] }],
  ])('is refused %s', (_what, changes) => {
    expect(() => requireContainer(specOf(changes))).toThrow(
      expect.objectContaining({ class: 'Unsupported', data: { driver: 'lxc' }, hint: expect.any(String) }),
    );
  });

  it.each<GuestSpecInput['boot']>([{ kind: 'disk' }, { kind: 'kernel', kernel: 'linux' }])(
    'is not begun by %j',
    (boot) => {
      expect(() => requireContainer(specOf({ boot }))).toThrow(
        expect.objectContaining({ class: 'InvalidArgument' }),
      );
    },
  );

  it.each(['q35', 'lxc', 'lxc-1'])('may be said to be the machine %s', (machine) => {
    expect(pinContainer(specOf({ machine })).type).toBe('lxc-1');
  });

  it('stays of the version that it was made of', () => {
    const older = { ...pinContainer(specOf()), type: 'lxc-0' };
    expect(pinContainer(specOf(), older).type).toBe('lxc-0');
  });

  const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'lan', 'eth0', 'eth1'), { maxLength: 6 });

  it('keeps the names that its NICs have in it, however others come and go', () => {
    fc.assert(
      fc.property(fc.array(names, { minLength: 2, maxLength: 6 }), (story) => {
        let pinned = pinContainer(specWith(story[0] ?? []));
        for (const wanted of story.slice(1)) {
          const before = new Map(pinned.nics.map(({ name, address }) => [name, address]));
          pinned = pinContainer(specWith(wanted), pinned);
          expect(pinned.nics.map(({ name }) => name)).toEqual(wanted);
          expect(new Set(pinned.nics.map(({ address }) => address)).size).toBe(wanted.length);
          for (const { name, address } of pinned.nics) {
            expect(address).toMatch(/^eth\d+$/);
            expect(address).toBe(before.get(name) ?? address);
          }
          expect(pinContainer(specWith(wanted), pinned)).toEqual(pinned);
        }
      }),
    );
  });

  it('gives a new NIC the first name that is free, and each the address of its spec', () => {
    const two = pinContainer(specWith(['a', 'b']));
    const one = pinContainer(specWith(['b']), two);
    expect(one.nics).toEqual([{ name: 'b', mac: macOf(0), address: 'eth1' }]);
    expect(pinContainer(specWith(['b', 'c', 'd']), one).nics.map(({ address }) => address)).toEqual([
      'eth1',
      'eth0',
      'eth2',
    ]);
  });

  it('names NICs by their place that have no name', () => {
    const spec = { ...specOf(), nics: nicsOf(['x', 'y']).map(({ name: _name, ...nic }) => nic) };
    expect(pinContainer(spec).nics.map(({ name, address }) => [name, address])).toEqual([
      ['nic0', 'eth0'],
      ['nic1', 'eth1'],
    ]);
  });
});

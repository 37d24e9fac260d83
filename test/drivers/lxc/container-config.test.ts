/** Golden configurations of containers. After a wanted change: `npx vitest run test/drivers/lxc -u`. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import {
  type ContainerConfigInput,
  containerConfig,
  nameIn,
  nicsIn,
} from '../../../drivers/lxc/container-config.ts';
import { type Controllers, limitFiles } from '../../../drivers/lxc/limits.ts';
import type { VethPort } from '../../../protocol/net-port.ts';
import { deviceName, guestName, type MacAddress } from '../../../protocol/types.ts';
import { bootOf, place } from './container-parts.ts';

const MEBIBYTE = 1024 ** 2;
const version1: Controllers = new Map([
  ['memory', 1],
  ['cpu', 1],
  ['pids', 1],
  ['blkio', 1],
]);
const version2: Controllers = new Map([
  ['memory', 2],
  ['cpu', 2],
  ['pids', 2],
  ['io', 2],
]);
const wanted = {
  memoryBytes: 256 * MEBIBYTE,
  cpus: 2,
  limits: { processes: 100, writeBytesPerSecond: MEBIBYTE },
};

const port = (last: number, ipv4?: VethPort['ipv4']): VethPort => ({
  kind: 'veth',
  link: `rvabcde1${last}`,
  peer: `rpabcde1${last}`,
  mac: `52:54:00:00:00:0${last}` as MacAddress,
  ...(ipv4 === undefined ? {} : { ipv4 }),
});
const nic = (last: number, ipv4?: VethPort['ipv4']): ContainerConfigInput['nics'][number] => ({
  name: `nic${last}`,
  link: `eth${last}`,
  port: port(last, ipv4),
});

const configOf = (changes: Partial<ContainerConfigInput> = {}): string =>
  containerConfig({
    place,
    name: 'web1',
    boot: bootOf(),
    nics: [],
    limits: [],
    hasAppArmor: false,
    ...changes,
  });

const lxcfsPath = '/var/lib/lxcfs';
const seccompPath = '/usr/share/lxc/config/common.seccomp';

const forms: Readonly<Record<string, Partial<ContainerConfigInput>>> = {
  'no-nic': {},
  nics: {
    nics: [
      nic(0, { address: '10.91.7.2', prefixLength: 24, gateway: '10.91.7.1' }),
      nic(1, { address: '10.91.8.2', prefixLength: 24 }),
      nic(2),
    ],
  },
  nesting: { boot: bootOf({ nesting: true }) },
  apparmor: { hasAppArmor: true },
  'apparmor-nesting': { hasAppArmor: true, boot: bootOf({ nesting: true }) },
  'seccomp-and-lxcfs': { seccompPath, lxcfsPath },
  'capabilities-kept-and-dropped': {
    boot: bootOf({
      keepCapabilities: ['sys_time', 'net_raw'],
      dropCapabilities: ['net_admin', 'sys_module'],
    }),
  },
  'all-capabilities-kept': {
    boot: bootOf({
      keepCapabilities: ['mac_admin', 'mac_override', 'sys_time', 'sys_module', 'sys_rawio'],
    }),
  },
  'limits-of-version-1': { limits: limitFiles(wanted, version1, '254:0') },
  'limits-of-version-2': { limits: limitFiles(wanted, version2, '254:0') },
  everything: {
    boot: bootOf({ nesting: true, dropCapabilities: ['net_admin'] }),
    nics: [nic(0, { address: '10.91.7.2', prefixLength: 24, gateway: '10.91.7.1' })],
    limits: limitFiles(wanted, version2, '254:0'),
    hasAppArmor: true,
    seccompPath,
    lxcfsPath,
  },
};

describe('the configuration of a container', () => {
  it.each(Object.entries(forms))('%s', async (name, changes) => {
    await expect(configOf(changes)).toMatchFileSnapshot(`../../golden/lxc/${name}.conf`);
  });

  const nameOf = (schema: z.ZodString, pattern: RegExp): fc.Arbitrary<string> =>
    fc.stringMatching(pattern).map((name) => schema.parse(name));
  const guestNames = nameOf(guestName, /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
  const nicNames = nameOf(deviceName, /^[a-z][a-z0-9-]{0,14}$/);

  it('tells its name and its NICs again, whatever they are called', () => {
    fc.assert(
      fc.property(guestNames, fc.uniqueArray(nicNames, { maxLength: 8 }), (name, nics) => {
        const text = configOf({
          name,
          nics: nics.map((called, index) => ({ name: called, link: `eth${index}`, port: port(index) })),
          boot: bootOf({ nesting: true }),
        });
        expect(nameIn(text)).toBe(name);
        expect(nicsIn(text)).toEqual(nics);
      }),
    );
  });

  it('tells no name and no NIC where it has none', () => {
    expect(nicsIn(configOf())).toEqual([]);
    expect(nameIn('')).toBeUndefined();
    expect(nameIn('# lxc.uts.name = web1\n')).toBeUndefined();
  });

  it('has a line of its own for each thing, and no other', () => {
    for (const changes of Object.values(forms)) {
      const lines = configOf(changes).trimEnd().split('\n');
      expect(lines.filter((line) => !/^(# .+|lxc\.[a-z0-9._]+ = \S.*)$/.test(line))).toEqual([]);
    }
  });
});

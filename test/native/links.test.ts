import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { enslaveLink, linkIndex, openTap, setLinkUp } from '../../native/index.ts';

const run = promisify(execFile);
const cannotMakeLinks = process.getuid?.() !== 0 || !existsSync('/dev/net/tun');

/** What TUNSETIFF was asked for, from linux/if_tun.h. */
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_PERSIST = 0x0800;
/** From linux/if.h. */
const IFF_UP = 0x1;

let name = '';

beforeEach(() => {
  name = `rt${randomBytes(5).toString('hex')}`;
});

function attribute(link: string, file: string): number {
  return Number(readFileSync(`/sys/class/net/${link}/${file}`, 'utf8'));
}

describe('linkIndex', () => {
  it('knows the loopback link and not one that is absent', () => {
    expect(linkIndex('lo')).toBe(attribute('lo', 'ifindex'));
    expect(linkIndex(name)).toBeUndefined();
  });
});

describe.skipIf(cannotMakeLinks)('openTap', () => {
  it('makes a tap that is gone with its descriptor', () => {
    const fd = openTap(name);
    try {
      const flags = attribute(name, 'tun_flags');
      expect(flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)).toBe(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
      expect(flags & IFF_PERSIST).toBe(0);
      expect(linkIndex(name)).toBe(attribute(name, 'ifindex'));
      expect(attribute(name, 'flags') & IFF_UP).toBe(0);
      setLinkUp(name);
      expect(attribute(name, 'flags') & IFF_UP).toBe(IFF_UP);
    } finally {
      closeSync(fd);
    }
    expect(existsSync(`/sys/class/net/${name}`)).toBe(false);
  });

  it('refuses a name in use and leaves the link alone', () => {
    const fd = openTap(name);
    try {
      expect(() => openTap(name)).toThrow(expect.objectContaining({ code: 'EBUSY', syscall: 'TUNSETIFF' }));
      expect(linkIndex(name)).toBeTypeOf('number');
    } finally {
      closeSync(fd);
    }
  });

  it('refuses a persistent tap, which would outlive the descriptor', async () => {
    await run('ip', ['tuntap', 'add', name, 'mode', 'tap']);
    try {
      expect(() => openTap(name)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    } finally {
      await run('ip', ['link', 'del', name]);
    }
  });

  it.each([
    ['', 'EINVAL'],
    ['rtpattern%d', 'EINVAL'],
    ['sixteen-bytes-xx', 'ENAMETOOLONG'],
  ])('refuses the name %j, which the kernel would not take as it is', (bad, code) => {
    expect(() => openTap(bad)).toThrow(expect.objectContaining({ code }));
    expect(existsSync('/sys/class/net/rtpattern0')).toBe(false);
  });
});

describe.skipIf(cannotMakeLinks)('enslaveLink', () => {
  let bridge = '';

  beforeEach(async () => {
    bridge = `rb${randomBytes(5).toString('hex')}`;
    await run('ip', ['link', 'add', bridge, 'type', 'bridge']);
  });

  afterEach(async () => {
    await run('ip', ['link', 'del', bridge]);
  });

  it('makes the tap a port of the bridge, once', () => {
    const fd = openTap(name);
    try {
      enslaveLink(name, bridge);
      expect(basename(readlinkSync(`/sys/class/net/${name}/master`))).toBe(bridge);
      expect(() => enslaveLink(name, bridge)).toThrow(
        expect.objectContaining({
          code: 'EBUSY',
          message: expect.stringContaining(`'${name} -> ${bridge}'`),
        }),
      );
    } finally {
      closeSync(fd);
    }
  });

  it('says which of the two is missing', () => {
    expect(() => enslaveLink(name, bridge)).toThrow(
      expect.objectContaining({ code: 'ENODEV', syscall: 'if_nametoindex' }),
    );
    expect(() => enslaveLink('lo', name)).toThrow(
      expect.objectContaining({ code: 'ENODEV', syscall: 'SIOCBRADDIF' }),
    );
  });
});

describe('setLinkUp', () => {
  it('names a link that is absent', () => {
    expect(() => setLinkUp(name)).toThrow(
      expect.objectContaining({
        code: 'ENODEV',
        syscall: 'SIOCGIFFLAGS',
        message: expect.stringContaining(name),
      }),
    );
  });
});

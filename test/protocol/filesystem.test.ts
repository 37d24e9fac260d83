import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { filesystemSpec, filesystems, MOST_FILESYSTEMS } from '../../protocol/filesystem.ts';

const accepts = (target: string, source = '/srv'): boolean =>
  filesystemSpec.safeParse({ source, target }).success;

describe('a directory of the host', () => {
  it.each(['/data', '/a/b/c', '/processes', '/sys-x', '/devel', '/var/lib/dev', '/a b,c', '/...'])(
    'may be at %s',
    (target) => expect(accepts(target)).toBe(true),
  );

  it.each([
    '',
    '/',
    'data',
    './data',
    '/proc',
    '/proc/self',
    '/sys',
    '/dev',
    '/dev/shm',
    '/a/',
    '//a',
    '/a/../b',
    '/./a',
    '/a\0',
  ])('may not be at %j', (target) => expect(accepts(target)).toBe(false));

  it.each(['srv', '', './srv', '/srv\0'])('may not be %j', (source) =>
    expect(accepts('/data', source)).toBe(false),
  );

  it('is never at a path that another spelling would lead to what the guest has for itself', () => {
    const part = fc.constantFrom('proc', 'sys', 'dev', 'a', '.', '..', '');
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
        const target = `/${parts.join('/')}`;
        if (!accepts(target)) return;
        const { pathname } = new URL(target, 'file://host');
        expect(pathname).toBe(target);
        expect(pathname).not.toMatch(/^\/(proc|sys|dev)?(\/|$)/);
      }),
    );
  });

  it('has a target that no other has, and not too many beside it', () => {
    const all = (count: number, target: (index: number) => string) =>
      filesystems.safeParse(
        Array.from({ length: count }, (_, index) => ({ source: '/srv', target: target(index) })),
      ).success;
    expect(all(MOST_FILESYSTEMS, (index) => `/${index}`)).toBe(true);
    expect(all(MOST_FILESYSTEMS + 1, (index) => `/${index}`)).toBe(false);
    expect(all(2, () => '/same')).toBe(false);
  });
});

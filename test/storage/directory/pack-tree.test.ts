import { expect, it } from 'vitest';
import { lossesIn } from '../../../storage/directory/pack-tree.ts';

it('what mksquashfs leaves out is counted and named, and other words of its are not', () => {
  const said = [
    'Unrecognised xattr prefix system.posix_acl_access',
    'Unrecognised xattr prefix system.posix_acl_default',
    'Unrecognised xattr prefix system.posix_acl_access',
    'a file called Unrecognised xattr prefix mine',
  ];
  expect(lossesIn(said.join('\n'))).toMatch(
    /^Left out: 3 attributes .*\(system\.posix_acl_access, system\.posix_acl_default\)/,
  );
  expect(lossesIn('')).toBeUndefined();
});

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { imageLabel, parseImageReference } from '../../protocol/image-reference.ts';
import { imageName, imageReference, imageVersion } from '../../protocol/types.ts';

const part = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,9}$/);
const names = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/'));
const versions = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/);

test('a name and a version make a reference that comes apart again', () => {
  fc.assert(
    fc.property(names, versions, (name, version) => {
      const label = imageLabel({ name, version });
      expect(imageName.parse(name)).toBe(name);
      expect(imageVersion.parse(version)).toBe(version);
      expect(parseImageReference(imageReference.parse(label))).toEqual({ name, version });
      expect(parseImageReference(name)).toEqual({ name });
    }),
  );
});

test.each(['', '/', 'a/', '/a', 'a//b', '../a', 'a/../b', 'A', 'a@1', 'a b', 'a'.repeat(64), '.', '-a'])(
  '%j is no name of an image',
  (name) => {
    expect(imageName.safeParse(name).success).toBe(false);
  },
);

test.each(['', '@', 'a@b', 'a/b', '-1', 'a b', 'x'.repeat(64)])('%j is no version', (version) => {
  expect(imageVersion.safeParse(version).success).toBe(false);
});

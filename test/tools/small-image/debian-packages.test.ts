import { describe, expect, it } from 'vitest';
import { parseControl } from '../../../tools/small-image/debian-packages.ts';

const shown = `Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)
Description: Linux for x86-64 cloud (meta-package)
 This package depends on the latest Linux kernel: a text line.
Description-md5: 9c9a

Package: busybox-static
Version: 1:1.35.0-4+deb12u1+b1

`;

describe('parseControl', () => {
  it('reads each paragraph, without the continuation lines', () => {
    expect(parseControl(shown).map((fields) => Object.fromEntries(fields))).toEqual([
      {
        package: 'linux-image-cloud-amd64',
        version: '6.1.192-2',
        depends: 'linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)',
        description: 'Linux for x86-64 cloud (meta-package)',
        'description-md5': '9c9a',
      },
      { package: 'busybox-static', version: '1:1.35.0-4+deb12u1+b1' },
    ]);
  });

  it('finds nothing in nothing', () => expect(parseControl('')).toEqual([]));
});

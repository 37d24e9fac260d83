import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseChallenges } from '../../../../storage/oci/registry/auth-challenge.ts';

const plain = (field: string): unknown =>
  parseChallenges(field).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

describe('a challenge', () => {
  it.each([
    ['', []],
    ['Basic', [['basic', {}]]],
    ['Basic realm="a \\"b\\" c"', [['basic', { realm: 'a "b" c' }]]],
    [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:a/b:pull,push',
          },
        ],
      ],
    ],
    ['BEARER Realm = x , Service=y', [['bearer', { realm: 'x', service: 'y' }]]],
    [
      'Negotiate, Basic realm="x"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'x' }],
      ],
    ],
    [
      'Bearer realm="x", Basic realm="y"',
      [
        ['bearer', { realm: 'x' }],
        ['basic', { realm: 'y' }],
      ],
    ],
    ['Bearer realm="never ends', [['bearer', {}]]],
  ])('%j', (field, expected) => {
    expect(plain(field)).toEqual(expected);
  });

  it('gives what was put in', () => {
    const token = fc.stringMatching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}$/);
    const value = fc.string({ maxLength: 40 }).filter((text) => !/[\r\n]/.test(text));
    fc.assert(
      fc.property(token, fc.dictionary(token, value, { maxKeys: 5 }), (scheme, given) => {
        const parameters = new Map(Object.entries(given).map(([key, text]) => [key.toLowerCase(), text]));
        const field = [...parameters]
          .map(([key, text]) => `${key}="${text.replace(/[\\"]/g, '\\$&')}"`)
          .join(', ');
        expect(parseChallenges(`${scheme} ${field}`)).toEqual([{ scheme: scheme.toLowerCase(), parameters }]);
      }),
    );
  });

  it('takes any text, and comes to an end', () => {
    fc.assert(fc.property(fc.string({ maxLength: 300 }), (text) => Array.isArray(parseChallenges(text))));
    expect(parseChallenges(`Bearer ${'a="'.repeat(10_000)}`).length).toBeLessThan(3);
  });
});

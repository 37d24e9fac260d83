import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { imageNameOf, ociReferenceText, parseOciReference } from '../../protocol/oci-reference.ts';
import { imageName } from '../../protocol/types.ts';

const sha = `sha256:${'ab'.repeat(32)}`;

const whole = (text: string): string | undefined => {
  const reference = parseOciReference(text);
  return reference && ociReferenceText(reference);
};

describe('a reference', () => {
  it.each([
    ['debian', 'docker.io/library/debian:latest'],
    ['debian:12', 'docker.io/library/debian:12'],
    ['team/app', 'docker.io/team/app:latest'],
    ['docker.io/debian', 'docker.io/library/debian:latest'],
    ['index.docker.io/library/debian', 'docker.io/library/debian:latest'],
    ['registry-1.docker.io/team/app', 'docker.io/team/app:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['Registry.Example/app', 'registry.example/app:latest'],
    ['127.0.0.1:5000/a/b/c:v1', '127.0.0.1:5000/a/b/c:v1'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    [`debian@${sha}`, `docker.io/library/debian@${sha}`],
    [`ghcr.io/team/app:v1@${sha}`, `ghcr.io/team/app:v1@${sha}`],
    ['a__b/c-d.e', 'docker.io/a__b/c-d.e:latest'],
  ])('%s means %s', (text, meaning) => {
    expect(whole(text)).toBe(meaning);
  });

  it.each([
    '',
    ':',
    'debian:',
    '@',
    'Debian',
    'team/App',
    '/debian',
    'debian/',
    'a//b',
    'a..b',
    'https://docker.io/debian',
    'debian:a b',
    'debian@sha256:12',
    `debian@${sha}@${sha}`,
    'user:password@host.example/app',
    'host.example/../etc',
    'host.example/app?x=1',
    'host.example/app#x',
    'debian\n',
    `a${'b'.repeat(260)}`,
    `debian:${'1'.repeat(129)}`,
  ])('%j is none', (text) => {
    expect(parseOciReference(text)).toBeUndefined();
  });

  it('means the same when it is written out whole', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}$/);
    const host = fc.constantFrom('docker.io/', 'localhost/', 'ghcr.io/', 'r.example:5000/', '10.0.0.1/');
    const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/));
    const digest = fc.option(fc.constant(sha));
    fc.assert(
      fc.property(host, fc.array(part, { minLength: 1, maxLength: 3 }), tag, digest, (h, parts, t, d) => {
        const text = `${h}${parts.join('/')}${t === null ? '' : `:${t}`}${d === null ? '' : `@${d}`}`;
        const reference = parseOciReference(text);
        expect(reference).toBeDefined();
        expect(reference && parseOciReference(ociReferenceText(reference))).toEqual(reference);
        const name = reference ? imageNameOf(reference) : '';
        expect(name.length > 63 || imageName.safeParse(name).success).toBe(true);
      }),
    );
  });

  it('is never understood where a URL would be another one', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 60 }), (text) => {
        const reference = parseOciReference(text);
        if (!reference) return;
        const url = new URL(`https://${reference.registry}/v2/${reference.repository}/manifests/latest`);
        expect(url.host).toBe(reference.registry.replace(/:443$/, ''));
        expect(url.pathname).toBe(`/v2/${reference.repository}/manifests/latest`);
      }),
    );
  });

  it.each([
    ['debian:12', 'debian/12'],
    ['debian', 'debian/latest'],
    ['ghcr.io/team/app:V1', 'ghcr.io/team/app/v1'],
    ['localhost:5000/app:_x', 'localhost-5000/app/x_x'],
    [`debian@${sha}`, 'debian/abababababab'],
  ])('%s is called %s here', (text, name) => {
    const reference = parseOciReference(text);
    expect(reference && imageNameOf(reference)).toBe(name);
  });
});

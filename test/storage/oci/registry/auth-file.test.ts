import { describe, expect, it } from 'vitest';
import { credentialsIn } from '../../../../storage/oci/registry/auth-file.ts';

const auth = (text: string): { auth: string } => ({ auth: Buffer.from(text).toString('base64') });
const look = (file: unknown, registry = 'r.example:5000', repository = 'team/app'): unknown =>
  credentialsIn(JSON.stringify(file), '/auth.json', registry, repository);

describe('a file of credentials', () => {
  it('has those of a host, and of the most exact path below it', () => {
    const auths = {
      'r.example:5000': auth('one:o'),
      'r.example:5000/team': auth('two:t:w'),
      'other.example': auth('three:x'),
    };
    expect(look({ auths })).toEqual({ username: 'two', password: 't:w' });
    expect(look({ auths }, 'r.example:5000', 'else/app')).toEqual({ username: 'one', password: 'o' });
    expect(look({ auths }, 'r.example', 'team/app')).toBeUndefined();
    expect(look({})).toBeUndefined();
  });

  it('knows Docker Hub by its old address, and others by URLs', () => {
    expect(
      look({ auths: { 'https://index.docker.io/v1/': auth('me:pw') } }, 'docker.io', 'library/debian'),
    ).toEqual({
      username: 'me',
      password: 'pw',
    });
    expect(look({ auths: { 'https://r.example:5000/v2/': auth('me:pw') } })).toEqual({
      username: 'me',
      password: 'pw',
    });
  });

  it('may hold a token', () => {
    const auths = { 'r.example:5000': { ...auth('0000:'), identitytoken: 'abc' } };
    expect(look({ auths })).toEqual({ identityToken: 'abc' });
  });

  it('is refused where a helper has them, naming it and nothing secret', () => {
    const wanted = expect.objectContaining({
      class: 'Unsupported',
      data: expect.objectContaining({ helper: 'pass' }),
    });
    expect(() => look({ credHelpers: { 'r.example:5000': 'pass' } })).toThrow(wanted);
    expect(() => look({ auths: { 'r.example:5000': {} }, credsStore: 'pass' })).toThrow(wanted);
    expect(look({ credsStore: 'pass' })).toBeUndefined();
  });

  it('is refused in another form, without its text', () => {
    for (const text of ['secret', '[]', '{"auths":"secret"}'])
      expect(() => credentialsIn(text, '/auth.json', 'r.example', 'a')).toThrow(
        expect.objectContaining({ class: 'InvalidArgument', message: expect.not.stringContaining('secret') }),
      );
    expect(() => look({ auths: { 'r.example:5000': { auth: 'AAAA' } } })).toThrow(
      expect.objectContaining({ class: 'InvalidArgument' }),
    );
  });
});

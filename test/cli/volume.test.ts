import { posix } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UnitError } from '../../cli/units.ts';
import { parseVolume } from '../../cli/volume.ts';
import { filesystemSpec } from '../../protocol/filesystem.ts';

const read = (text: string) => parseVolume(text, '/home/web');

/** Undefined where it is refused; any other failure is one. */
const readUnlessRefused = (text: string): ReturnType<typeof read> | undefined => {
  try {
    return read(text);
  } catch (error) {
    if (error instanceof UnitError) return undefined;
    throw error;
  }
};

describe('a volume', () => {
  it.each([
    ['/srv/site:/www', '/srv/site', '/www', false],
    ['/srv/site:/www:ro', '/srv/site', '/www', true],
    ['/srv/site:/www:rw', '/srv/site', '/www', false],
    ['/srv/site:/www:cached,ro', '/srv/site', '/www', true],
    ['./site:/www', '/home/web/site', '/www', false],
    ['.:/www', '/home/web', '/www', false],
    ['../site/:/www/', '/home/site', '/www', false],
    ['/:/host:ro', '/', '/host', true],
    ['/srv/../etc:/a/./b/../c', '/etc', '/a/c', false],
    ['/srv/a,b c:/www', '/srv/a,b c', '/www', false],
  ])('%s', (text, source, target, readOnly) => {
    expect(read(text)).toEqual({ source, target, readOnly });
  });

  it.each([
    ['/srv:/data:copy', { readOnly: false, mode: 'copy' }],
    ['/srv:/data:ro,copy', { readOnly: true, mode: 'copy' }],
    ['/srv:/data:share', { readOnly: false, mode: 'share' }],
  ])('%s says how it is to be had', (text, how) => {
    expect(read(text)).toEqual({ source: '/srv', target: '/data', ...how });
  });

  it.each([
    ['data:/data', 'volumes with a name are not made'],
    ['site/x:/data', 'begins with / or ./: ./site/x'],
    ['/data', 'volumes without a source are not made'],
    ['data', 'volumes without a source are not made'],
    ['', 'volumes without a source are not made'],
    ['/data:ro', 'an option needs a source and a target'],
    ['/srv:data', 'must be absolute: /data'],
    [':/data', 'an empty part'],
    ['/srv:', 'an empty part'],
    ['/srv:/data:', 'an empty part'],
    ['/a:/b:ro:/c', 'an empty part, or too many'],
    ['/srv:/data:z', "'z' is no option"],
    ['/srv:/data:ro,rw', 'ro or rw, once'],
    ['/srv:/data:share,copy', 'share or copy, once'],
    ['/data:copy', 'an option needs a source and a target'],
    ['/srv:/data:ro,', "'' is no option"],
  ])('%s is refused', (text, why) => {
    expect(() => read(text)).toThrow(UnitError);
    expect(() => read(text)).toThrow(why);
  });

  const part = fc.stringMatching(/^[a-z0-9_,= -]{1,8}$/).filter((text) => text.trim() === text);
  const path = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join('/')}`);

  it('that is written out is what was meant', () => {
    fc.assert(
      fc.property(path, path, fc.constantFrom('', ':ro', ':rw'), (source, target, mode) => {
        expect(read(`${source}:${target}${mode}`)).toEqual({
          source,
          target,
          readOnly: mode === ':ro',
        });
      }),
    );
  });

  it('is refused by its parser, or has paths in their shortest form that the contract can judge', () => {
    const piece = fc.constantFrom('/', '.', '..', ':', 'a', 'ro', 'rw', ',', ' ');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const volume = readUnlessRefused(pieces.join(''));
        if (!volume) return;
        for (const each of [volume.source, volume.target]) {
          expect(each.startsWith('/')).toBe(true);
          expect(posix.normalize(each)).toBe(each);
        }
        // All that the contract has against such a target is what is the guest's own.
        const isOwn = /^\/($|(proc|sys|dev)(\/|$))/.test(volume.target);
        expect(filesystemSpec.safeParse(volume).success).toBe(!isOwn);
      }),
    );
  });
});

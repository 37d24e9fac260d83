import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PackageProgress } from '../../../storage/debian/package-progress.ts';

const transcript = [
  'I: running apt-get update...',
  'Get:1 http://mirror.test bookworm InRelease [151 kB]',
  'I: downloading packages with apt...',
  '0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.',
  'Get:1 http://mirror.test bookworm/main amd64 a all 1 [1 kB]',
  'Get:2 http://mirror.test bookworm/main amd64 b all 1 [1 kB]',
  'I: extracting archives...',
  'I: installing essential packages...',
  'I: installing remaining packages inside the chroot...',
  '0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.',
  'Get:1 http://mirror.test bookworm/main amd64 c all 1 [1 kB]',
  'Get:2 http://mirror.test bookworm/main amd64 d all 1 [1 kB]',
  'Unpacking c (1) ...',
  'Unpacking d (1) ...',
  'Setting up c (1) ...',
  'Setting up d (1) ...',
  'I: cleaning package lists and apt cache...',
  '',
].join('\n');

test('a build goes from nothing to nearly all', () => {
  const progress = new PackageProgress();
  const heard = transcript.split('\n').flatMap((line) => progress.hear(`${line}\n`) ?? []);
  expect(heard[0]).toBeGreaterThan(0);
  expect(heard.at(-1)).toBe(0.98);
  expect(progress.doing).toBe('Cleaning up');
});

test('it never goes back, however the text is cut and whatever is in it', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string(), fc.constantFrom(...transcript.split('\n').map((line) => `${line}\n`)))),
      (pieces) => {
        const progress = new PackageProgress();
        let last = 0;
        for (const piece of pieces) {
          const fraction = progress.hear(piece);
          if (fraction === undefined) continue;
          expect(fraction).toBeGreaterThan(last);
          expect(fraction).toBeLessThanOrEqual(1);
          last = fraction;
        }
      },
    ),
  );
});

test('the cuts make no difference', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(transcript.length)), (cuts) => {
      const whole = new PackageProgress();
      whole.hear(transcript);
      const inPieces = new PackageProgress();
      let from = 0;
      for (const cut of [...cuts, transcript.length].sort((a, b) => a - b)) {
        inPieces.hear(transcript.slice(from, cut));
        from = cut;
      }
      expect(inPieces).toEqual(whole);
    }),
  );
});

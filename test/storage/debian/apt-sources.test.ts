import fc from 'fast-check';
import { expect, test } from 'vitest';
import { sourcesFor, transportOptions } from '../../../storage/debian/apt-sources.ts';

const signed = 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]';

test("the host's mirrors are used where they carry the release, else Debian's own", () => {
  const targets = [
    'Debian|http://mirror.test/debian/|bookworm|main',
    'Debian|http://mirror.test/debian/|bookworm|contrib',
    'Debian|http://other.test/debian/|trixie-updates|main',
    'HashiCorp|https://apt.test/|bookworm-updates|main',
    '|http://unknown.test/|bookworm-security|main',
    '',
  ].join('\n');
  expect(sourcesFor('bookworm', targets)).toEqual([
    `${signed} http://mirror.test/debian/ bookworm main`,
    `${signed} http://deb.debian.org/debian bookworm-updates main`,
    `${signed} http://deb.debian.org/debian-security bookworm-security main`,
  ]);
});

test('whatever apt says, there are three lines, all signed by Debian', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (said) => {
      const lines = sourcesFor('bookworm', said);
      expect(lines).toHaveLength(3);
      for (const line of lines) expect(line.startsWith(`${signed} `)).toBe(true);
    }),
  );
});

test('only the settings of transports are taken from the host', () => {
  const dump = [
    'APT "";',
    'Acquire "";',
    'Acquire::http::Proxy "http://proxy.test:3128/";',
    'Acquire::http::Proxy::mirror.test "DIRECT";',
    'Acquire::https::CAInfo "/etc/ssl/own.pem";',
    'Acquire::cdrom::mount "/media/cdrom/";',
    'Acquire::http "";',
    'DPkg::Post-Invoke:: "rm -f /x";',
  ].join('\n');
  expect(transportOptions(dump)).toEqual([
    'Acquire::http::Proxy "http://proxy.test:3128/";',
    'Acquire::http::Proxy::mirror.test "DIRECT";',
    'Acquire::https::CAInfo "/etc/ssl/own.pem";',
  ]);
});

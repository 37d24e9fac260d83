import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkSeed } from '../../../daemon/cloud-init/check-seed.ts';
import { cloudConfigKeys } from '../../../daemon/cloud-init/cloud-config-keys.ts';
import { yamlText } from '../../../daemon/cloud-init/yaml-text.ts';
import { isRoostError } from '../../../protocol/errors.ts';

const refusal = (given: Parameters<typeof checkSeed>[0]): string => {
  try {
    checkSeed(given);
  } catch (error) {
    if (isRoostError(error, 'InvalidArgument') && error.hint !== undefined) return error.message;
    throw error;
  }
  return 'not refused';
};

describe('user-data', () => {
  it.each([
    '#cloud-config\n',
    '#cloud-config\npackages: [curl]\n',
    '#cloud-config\r\npackages: [curl]\r\n',
    '#cloud-config-archive\n- type: text/x-shellscript\n  content: "#!/bin/sh"\n',
    '#cloud-config-jsonp\n[]\n',
    '#!/bin/sh\ntrue\n',
    '#include\nhttps://example.org/data\n',
    '#include-once https://example.org/data\n',
    '#cloud-boothook\n#!/bin/sh\n',
    '#part-handler\ndef list_types(): pass\n',
    '## template: jinja\n#cloud-config\n{% if v1.distro == "debian" %}packages: [curl]{% endif %}\n',
    'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x--\n',
    'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="x"\n\n--x--\n',
  ])('takes %j without a word', (userData) => {
    expect(checkSeed({ userData })).toEqual([]);
  });

  it.each([
    ['packages: [curl]\n', /begins with "packages: \[curl\]"/],
    ['\n#cloud-config\n', /begins with ""/],
    ['# cloud-config\n', /begins with "# cloud-config"/],
    ['#cloud-configs\n', /begins with "#cloud-configs"/],
    ['\uFEFF#cloud-config\n', /would not know what it is/],
    ['#cloud-config\n- a list\n', /no map of keys and values/],
    ['#cloud-config-archive\na: map\n', /no list of parts/],
    ['#cloud-config\npackages: [curl\n', /The user-data is wrong: /],
    ['#cloud-config\npackages: [a]\npackages: [b]\n', /Map keys must be unique at line 3/],
    ['#cloud-config\n---\na: 1\n---\nb: 2\n', /multiple documents/],
    ['#cloud-config\nruncmd: "\uD800"\n', /is no text/],
    ['#!/bin/sh\n\0\n', /is no text/],
    [`#!/bin/sh\n${'ä'.repeat(130 * 1024)}`, /has \d+ bytes, more than 262144/],
  ])('refuses %j', (userData, why) => {
    expect(refusal({ userData })).toMatch(why);
  });

  it('refuses aliases that grow without end', () => {
    const layers = Array.from({ length: 12 }, (_, n) => `l${n + 1}: &l${n + 1} [${`*l${n},`.repeat(9)}]`);
    expect(refusal({ userData: `#cloud-config\nl0: &l0 [x]\n${layers.join('\n')}\n` })).toMatch(/alias/i);
  });

  it.each([
    [
      '#cloud-config\npakages: [x]\n',
      ["user-data: cloud-init knows no 'pakages' and will ignore it; did you mean 'packages'?"],
    ],
    ['#cloud-config\nzzzzzzzz: 1\n', ["user-data: cloud-init knows no 'zzzzzzzz' and will ignore it"]],
    [
      '#cloud-config\nbootcmd:\n  - [ip, link, set, 52:54:00:12:34:56]\n',
      ['user-data, line 3: 52:54:00:12:34:56 is read as the number 41135085296; put it in quotes'],
    ],
    ['#cloud-config\nntp: {on: true}\n', ['user-data, line 2: the key on is read as true; put it in quotes']],
    ['#!/bin/sh\r\ntrue\r\n', ['user-data: its lines end with CR LF, which a shell does not take']],
  ])('warns of %j', (userData, warnings) => {
    expect(checkSeed({ userData })).toEqual(warnings);
  });

  it('takes every key it knows, and every cloud-config that is written for YAML 1.1', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom(...cloudConfigKeys), fc.jsonValue({ maxDepth: 2 }), { minKeys: 1 }),
        (config) => {
          const userData = `#cloud-config\n${yamlText(config)}`;
          expect(checkSeed({ userData })).toEqual([]);
        },
      ),
      // A key that would merge maps, were it not in quotes.
      { examples: [[{ ntp: { '<<': 0 } }], [{ ntp: { '<<': { a: 1 } } }]] },
    );
  });

  it('answers any text with a refusal or warnings, never with another error', () => {
    const beginnings = fc.constantFrom('#cloud-config\n', '#cloud-config-archive\n', '#!/bin/sh\n', '');
    fc.assert(
      fc.property(beginnings, fc.string({ unit: 'binary', maxLength: 200 }), (beginning, rest) => {
        for (const given of [{ userData: beginning + rest }, { metaData: rest }, { networkConfig: rest }])
          expect(refusal(given)).not.toBe('');
      }),
    );
  });
});

describe('meta-data and network-config', () => {
  it.each([
    { metaData: 'instance-id: x\n' },
    { metaData: '{"instance-id": "x"}' },
    { networkConfig: 'version: 2\nethernets: {}\n' },
    { networkConfig: 'network:\n  version: 1\n  config: []\n' },
  ])('takes %j', (given) => {
    expect(checkSeed(given)).toEqual([]);
  });

  it.each([
    [{ metaData: 'just words' }, /meta-data is wrong: it is no map/],
    [{ metaData: 'a: 1\na: 2\n' }, /meta-data is wrong: Map keys must be unique/],
    [{ networkConfig: 'ethernets: {}\n' }, /network-config has no version/],
    [{ networkConfig: 'version: 3\n' }, /network-config has no version, or one/],
    [{ networkConfig: '- 1\n' }, /network-config is wrong: it is no map/],
  ])('refuses %j', (given, why) => {
    expect(refusal(given)).toMatch(why);
  });

  it('warns of a MAC address that YAML 1.1 takes for a number', () => {
    const networkConfig = 'version: 2\nethernets:\n  a:\n    match:\n      macaddress: 52:54:00:12:34:56\n';
    expect(checkSeed({ networkConfig })).toEqual([
      'network-config, line 5: 52:54:00:12:34:56 is read as the number 41135085296; put it in quotes',
    ]);
  });
});

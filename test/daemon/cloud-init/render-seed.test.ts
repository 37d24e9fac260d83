/** Golden seeds. After a wanted change: `npx vitest run test/daemon/cloud-init -u`. */
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { storedCloudInit } from '../../../daemon/cloud-init/change-cloud-init.ts';
import { cloudInitViewOf, renderSeed, type SeedSubject } from '../../../daemon/cloud-init/render-seed.ts';
import type { CloudInitSpec } from '../../../protocol/cloud-init.ts';
import type { GuestId, MacAddress } from '../../../protocol/types.ts';

const subjectOf = (
  spec: CloudInitSpec,
  nics: readonly string[] = ['52:54:00:12:34:56'],
  instance = 1,
): SeedSubject => ({
  id: '5a9c7f5a-1b2c-4d3e-8f90-a1b2c3d4e5f6' as GuestId,
  name: 'web1',
  cloudInit: storedCloudInit(spec, instance),
  nics: nics.map((mac, index) => ({ name: `nic${index}`, mac: mac as MacAddress })),
});

const HASH = '$6$salt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/';
const KEY =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6imP1CZrBSyKBB837EfRjO6HS+pi24WoSPrQxTTbjm yes: no # me@home';
const USER_DATA = '#cloud-config\n# Of my own\nruncmd: [date]\n';

const cases: Readonly<Record<string, SeedSubject>> = {
  nothing: subjectOf({}),
  'without-nics': subjectOf({}, []),
  'two-nics': subjectOf({}, ['52:54:00:12:34:56', '52:54:00:ab:cd:ef']),
  'simple-settings': subjectOf({
    hostname: 'www.example.org',
    user: 'alice',
    sshKeys: [KEY],
    passwordHash: HASH,
  }),
  'password-alone': subjectOf({ passwordHash: HASH }),
  'user-alone': subjectOf({ user: 'on' }),
  'own-user-data': subjectOf({ userData: USER_DATA }),
  'own-user-data-and-settings': subjectOf({ userData: USER_DATA, sshKeys: [KEY] }),
  'own-meta-data': subjectOf({ metaData: 'public-keys: [none]\n' }),
  'own-meta-data-whole': subjectOf({ metaData: '# Mine\ninstance-id: "0123"\nlocal-hostname: other\n' }),
  'own-network-config': subjectOf({ networkConfig: 'version: 1\nconfig: []\n' }),
  'second-instance': subjectOf({}, [], 2),
};

describe('renderSeed', () => {
  it.each(Object.keys(cases))('%s', async (name) => {
    const subject = cases[name] ?? subjectOf({});
    const files = Object.entries(renderSeed(subject)).map(([file, text]) => `==> ${file} <==\n${text}`);
    await expect(files.join('\n')).toMatchFileSnapshot(`../../golden/seeds/${name}.txt`);
  });

  it('quotes what a reader of YAML 1.1 would take for a number or a boolean', () => {
    const digits = renderSeed(subjectOf({ user: 'on' }, ['52:54:00:12:34:56']));
    expect(parse(digits['network-config'], { version: '1.1' })).toMatchObject({
      ethernets: { nic0: { match: { macaddress: '52:54:00:12:34:56' } } },
    });
    expect(parse(digits['user-data'], { version: '1.1' })).toEqual({ user: { name: 'on' } });
  });

  it('gives keys back as they were, whatever stands in their comments', () => {
    const { 'user-data': text } = renderSeed(subjectOf({ sshKeys: [KEY] }));
    expect(parse(text, { version: '1.1' })).toEqual({ ssh_authorized_keys: [KEY] });
  });
});

describe('cloudInitViewOf', () => {
  it('tells what there is and no secret', () => {
    const view = cloudInitViewOf(
      subjectOf({ user: 'alice', sshKeys: [KEY], passwordHash: HASH, userData: USER_DATA }),
    );
    expect(view).toEqual({
      instanceId: '5a9c7f5a-1b2c-4d3e-8f90-a1b2c3d4e5f6',
      hostname: 'web1',
      user: 'alice',
      sshKeys: [KEY],
      hasPassword: true,
      userDataBytes: USER_DATA.length,
    });
  });

  it('tells the instance-id and the name that the own meta-data gives', () => {
    expect(cloudInitViewOf(cases['own-meta-data-whole'] ?? subjectOf({}))).toMatchObject({
      instanceId: '0123',
      hostname: 'other',
      hasPassword: false,
    });
  });
});

import { describe, expect, it } from 'vitest';
import { redactSeed } from '../../../daemon/cloud-init/redact.ts';
import type { SeedFiles } from '../../../protocol/cloud-init.ts';

const SECRET = 'hush-hush';
const filesOf = (userData: string): SeedFiles => ({
  'meta-data': 'instance-id: x\n',
  'user-data': userData,
  'network-config': 'version: 2\n',
});
const shown = (userData: string): string => redactSeed(filesOf(userData))['user-data'];

describe('redactSeed', () => {
  it.each([
    `password: ${SECRET}`,
    `users: [{name: a, passwd: ${SECRET}}]`,
    `users:\n  - {name: a, hashed_passwd: ${SECRET}, plain_text_passwd: ${SECRET}}`,
    `chpasswd:\n  list: |\n    root:${SECRET}\n`,
    `chpasswd: {users: [{name: a, password: ${SECRET}}], list: [a:${SECRET}]}`,
    `ssh_keys:\n  ed25519_private: |\n    ${SECRET}\n`,
    `rh_subscription: {username: a, password: "${SECRET}"}`,
    `ubuntu_advantage: {token: ${SECRET}}`,
    `chef: {validation_key: ${SECRET}}`,
    `password: >-\n  ${SECRET}\n  and more`,
  ])('hides the secret of %j', (config) => {
    expect(config).toContain(SECRET);
    const text = shown(`#cloud-config\n${config}\n`);
    expect(text).not.toContain(SECRET);
    expect(text).toContain('(hidden)');
  });

  it.each([
    `#!/bin/sh\nPASSWORD=${SECRET}\n`,
    `#!/bin/sh\nexport API_KEY="${SECRET}"\n`,
    `## template: jinja\n#cloud-config\npassword: ${SECRET}\n`,
    `Content-Type: text/cloud-config\n\n#cloud-config\npassword: ${SECRET}\n`,
  ])('hides what looks like a secret in %j', (text) => {
    expect(shown(text)).not.toContain(SECRET);
  });

  it('hides secrets in meta-data and vendor-data too', () => {
    const files = { ...filesOf('#!/bin/sh\n'), 'vendor-data': `#cloud-config\npassword: ${SECRET}\n` };
    expect(JSON.stringify(redactSeed({ ...files, 'meta-data': `token: ${SECRET}\n` }))).not.toContain(SECRET);
  });

  it('leaves the rest as it was written, comments too', () => {
    const text = '#cloud-config\n# Why\nlock_passwd: false\nssh_pwauth: true\nruncmd: [[sh, -c, "date"]]\n';
    expect(shown(text)).toBe(text);
    expect(shown('#!/bin/sh\ndate\n')).toBe('#!/bin/sh\ndate\n');
  });
});

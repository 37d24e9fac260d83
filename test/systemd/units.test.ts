/** The units as systemd itself reads them; how they work is tried in a real host by test/e2e/service.test.ts. */
import { execFile } from 'node:child_process';
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { testDirectory } from '../harness/test-directory.ts';

const run = promisify(execFile);
const source = join(import.meta.dirname, '../../systemd');
const UNITS = ['roostd.service', 'roostd.socket', 'roost.slice', 'roost-guests.service'] as const;

/** The units in a directory of their own, with programs that are there. */
const stagedUnits = async (): Promise<string> => {
  const directory = await testDirectory('units');
  const program = join(directory, 'program');
  await writeFile(program, '#!/bin/sh\n');
  await chmod(program, 0o755);
  for (const unit of UNITS) {
    const text = await readFile(join(source, unit), 'utf8');
    await writeFile(
      join(directory, unit),
      text.replaceAll(/^(Exec\w+=)(?:\/usr\/sbin\/roostd|\/usr\/bin\/roost)\b/gm, `$1${program}`),
    );
  }
  return directory;
};

const settingsOf = async (unit: string): Promise<readonly string[]> =>
  (await readFile(join(source, unit), 'utf8')).split('\n').filter((line) => /^[A-Z]\w+=/.test(line));

describeWith(['systemd-analyze'], 'the units', () => {
  it('are read by systemd without a word', async () => {
    const directory = await stagedUnits();
    const { stdout, stderr } = await run('systemd-analyze', ['verify', '--man=no', ...UNITS], {
      cwd: directory,
      env: { ...process.env, SYSTEMD_UNIT_PATH: `${directory}:` },
    });
    expect(stdout + stderr).toBe('');
  });

  it('a wrong setting would be told', async () => {
    const directory = await stagedUnits();
    const path = join(directory, 'roostd.service');
    await writeFile(
      path,
      (await readFile(path, 'utf8')).replace('OOMPolicy=continue', 'OOMPolicy=sometimes'),
    );
    const { stderr } = await run('systemd-analyze', ['verify', '--man=no', path]);
    expect(stderr).toContain('sometimes');
  });

  it('the daemon is held as tightly as its work allows', async () => {
    const directory = await stagedUnits();
    const { stdout } = await run('systemd-analyze', [
      'security',
      '--offline=yes',
      '--threshold=76',
      join(directory, 'roostd.service'),
    ]);
    const given = (setting: string): boolean => stdout.includes(`✓ ${setting}`);
    for (const setting of [
      'ProtectKernelModules=',
      'ProtectKernelLogs=',
      'RestrictRealtime=',
      'SystemCallFilter=~@module',
      'SystemCallFilter=~@raw-io',
      'CapabilityBoundingSet=~CAP_SYS_MODULE',
      'CapabilityBoundingSet=~CAP_SYS_TIME',
      'CapabilityBoundingSet=~CAP_SYS_RAWIO',
    ])
      expect([setting, given(setting)]).toEqual([setting, true]);
  });

  it('nothing that stops the daemon stops a guest', async () => {
    const daemon = await settingsOf('roostd.service');
    expect(daemon).toEqual(
      expect.arrayContaining([
        'Type=notify',
        'KillMode=process',
        'RuntimeDirectoryPreserve=yes',
        'OOMPolicy=continue',
        'TasksMax=infinity',
      ]),
    );
    const guests = await settingsOf('roost-guests.service');
    const binding = guests.filter((line) => /^(Requires|Requisite|BindsTo|PartOf)=/.test(line));
    expect(binding).toEqual([]);
  });

  it('every file in systemd/ has its place in an installation', async () => {
    expect((await readdir(source)).sort()).toEqual([...UNITS, 'roost.sysusers', 'roost.tmpfiles'].sort());
  });
});

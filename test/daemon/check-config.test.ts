import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkConfig } from '../../daemon/check-config.ts';
import { parseCommandLine } from '../../daemon/config.ts';
import { testDirectory } from '../harness/test-directory.ts';

const host = { uid: 1000, env: {} };

/** What the command line means with a file of this text. */
const checked = async (text: string): Promise<{ text: string; fits: boolean }> => {
  const path = join(await testDirectory('config'), 'roostd.yaml');
  await writeFile(path, text);
  const commandLine = parseCommandLine(['--config', path, '--check-config'], host);
  if (commandLine.kind !== 'check') throw new Error(commandLine.kind);
  return await checkConfig(commandLine.path, commandLine.config);
};

test('a file that fits is shown with every setting in force, in its own form', async () => {
  const { text, fits } = await checked(
    'websocket: { listen: "127.0.0.1:7700" }\nqemu: { binaries: { default: /bin/sh } }\nsocket: { group: root }\n',
  );
  expect(fits).toBe(true);
  expect(text).not.toMatch(/^(error|warning):/m);
  expect(text).toContain('listen: 127.0.0.1:7700');
  expect(text).toContain('keepMs: 2592000000');
});

test('what this host lacks is warned of, what stops a daemon is an error', async () => {
  const { text, fits } = await checked(
    'stateDirectory: /dev/null\nqemu: { binaries: { default: /no/such } }\nsocket: { group: nobodies }\n',
  );
  expect(fits).toBe(false);
  expect(text.split('\n').filter((line) => /^(error|warning):/.test(line))).toEqual([
    'error: stateDirectory: /dev/null is no directory',
    'warning: qemu.binaries.default: /no/such is no program on this host',
    'warning: socket.group: there is no group nobodies; root alone may use the socket',
  ]);
});

test('the program ends with the exit code for a wrong configuration, and names file and setting', async () => {
  const path = join(await testDirectory('config'), 'roostd.yaml');
  await writeFile(path, 'log: { level: loud }\n');
  const roostd = join(import.meta.dirname, '../../bin/roostd');
  const outcome = await new Promise<{ code: unknown; said: string }>((resolve) => {
    execFile(process.execPath, [roostd, '--config', path, '--check-config'], (error, _, stderr) =>
      resolve({ code: error?.code, said: stderr }),
    );
  });
  expect(outcome).toMatchObject({ code: 78, said: expect.stringContaining(`${path}: log.level:`) });
});

import { link, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  ensureDirectory,
  namesIn,
  removeDirectory,
  removeFiles,
  replaceFile,
  settleFile,
} from '../../../storage/files/durable-files.ts';
import { scratchDirectory } from '../scratch-directory.ts';

const scratchPath = async (name: string): Promise<string> => {
  const scratch = await scratchDirectory();
  onTestFinished(() => scratch[Symbol.asyncDispose]());
  return join(scratch.path, name);
};

const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o7777;

describe('settling what a tool made', () => {
  it('gives a plain file its mode', async () => {
    const path = await scratchPath('file');
    await writeFile(path, 'content', { mode: 0o666 });
    await settleFile(path, { mode: 0o440 });
    expect(await modeOf(path)).toBe(0o440);
  });

  it('takes no link of either kind, and no directory', async () => {
    const victim = await scratchPath('victim');
    await writeFile(victim, 'content');
    const before = await modeOf(victim);
    await symlink(victim, `${victim}.symbolic`);
    await link(victim, `${victim}.hard`);
    await mkdir(`${victim}.directory`);
    await expect(settleFile(`${victim}.symbolic`, { mode: 0o777 })).rejects.toMatchObject({ code: 'ELOOP' });
    await expect(settleFile(`${victim}.hard`, { mode: 0o777 })).rejects.toMatchObject({ class: 'HostError' });
    await expect(settleFile(`${victim}.directory`, { mode: 0 })).rejects.toMatchObject({
      class: 'HostError',
    });
    expect(await modeOf(victim)).toBe(before);
  });
});

describe('replacing a small file', () => {
  it('leaves only the new one, over a partial file of a crash too', async () => {
    const path = await scratchPath('record.json');
    await writeFile(path, 'old');
    await writeFile(`${path}.partial`, 'cut off, and longer than what follows');
    await replaceFile(path, 'new', { mode: 0o600, partialPath: `${path}.partial` });
    expect(await readFile(path, 'utf8')).toBe('new');
    expect(await modeOf(path)).toBe(0o600);
    expect(await readdir(join(path, '..'))).toEqual(['record.json']);
  });
});

describe('directories', () => {
  it('are made with their mode whatever the umask, without touching those that exist', async () => {
    const top = await scratchPath('top');
    await mkdir(top);
    const before = await modeOf(top);
    await ensureDirectory(join(top, 'a', 'b'), 0o733);
    await ensureDirectory(join(top, 'a', 'b'), 0o711);
    expect([await modeOf(top), await modeOf(join(top, 'a')), await modeOf(join(top, 'a', 'b'))]).toEqual([
      before,
      0o733,
      0o711,
    ]);
  });

  it('may be missing when they are listed or removed', async () => {
    const path = await scratchPath('missing');
    await removeDirectory(join(path, 'deeper'));
    await removeFiles(path, ['file']);
    expect(await namesIn(path)).toEqual([]);
  });
});

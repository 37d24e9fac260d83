/** Who ends a container whose warden was killed, where the kernel does not. */
import { readdir, readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { describeWith } from '../harness/needs.ts';
import { WardenProcess } from './warden-process.ts';

const { signal } = new AbortController();
const more = ['--guard', 'yes'];

/** Whether the guard of a warden runs. */
const hasGuard = async (warden: WardenProcess): Promise<boolean> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''));
  return (await Promise.all(lines)).some((line) =>
    line.includes(`--clear\0--cgroup\0roost-${warden.name}\0--after`),
  );
};

describeWith(['root', 'lxc'], 'the guard of a warden', () => {
  it('clears the container away when the warden is killed, and ends', async () => {
    await using warden = await WardenProcess.start({
      init: ['/bin/sh', '-c', 'while :; do sleep 1000; done'],
      more,
    });
    await (await warden.monitor()).execute('cont', {}, { signal });
    expect(await hasGuard(warden)).toBe(true);
    expect(await warden.groups()).not.toEqual([]);
    warden.kill('SIGKILL');
    await warden.exit;
    await expect.poll(() => hasGuard(warden)).toBe(false);
    expect(await warden.groups()).toEqual([]);
  });

  it('ends with the warden, and does not hold its lock', async () => {
    await using warden = await WardenProcess.start({ init: ['/bin/sh', '-c', 'exit 0'], more });
    await (await warden.monitor()).execute('cont', {}, { signal });
    expect(await warden.exit).toEqual({ code: 0, signal: null });
    await using again = await warden.again({ init: ['/bin/sh', '-c', 'exit 0'] });
    expect(again.pid).not.toBe(warden.pid);
    await expect.poll(() => hasGuard(warden)).toBe(false);
  });
});

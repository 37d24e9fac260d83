import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import { countHandles, findLeaks } from './leak-check.ts';
import { describeWith } from './needs.ts';
import { makeDirectory, testDirectory } from './test-directory.ts';
import { trackInstance, worker } from './worker.ts';

const run = promisify(execFile);
const own = worker();
const leaks = (): Promise<readonly string[]> => findLeaks(own, handles);
let handles = countHandles();

describe('findLeaks', () => {
  it('finds nothing where nothing was left', async () => {
    handles = countHandles();
    expect(await leaks()).toEqual([]);
  });

  it('finds a child', async () => {
    const child = spawn('sleep', ['60'], { stdio: 'ignore', env: {} });
    await once(child, 'spawn');
    expect(await leaks()).toContain(`process ${child.pid}: sleep 60`);
    child.kill();
    await once(child, 'close');
  });

  it('finds a grandchild whose parent is gone', async () => {
    const parent = spawn('sh', ['-c', 'sleep 61 >/dev/null 2>&1 & echo $!'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const pid = Number(await text(parent.stdout));
    expect(await leaks()).toContain(`process ${pid}: sleep 61`);
    process.kill(pid);
    await vi.waitFor(async () => expect(await leaks()).not.toContainEqual(expect.stringMatching(/^process/)));
  });

  it('finds a detached process that has lost the environment but stands in our directory', async () => {
    const cwd = await testDirectory();
    const parent = spawn('sh', ['-c', 'sleep 62 >/dev/null 2>&1 & echo $!'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { PATH: process.env.PATH },
      cwd,
    });
    const pid = Number(await text(parent.stdout));
    expect(await leaks()).toContain(`process ${pid}: sleep 62`);
    process.kill(pid);
    await vi.waitFor(async () => expect(await leaks()).not.toContainEqual(expect.stringMatching(/^process/)));
  });

  it('finds a file, an open file and a directory, but no cache of a tool', async () => {
    const path = join(await makeDirectory('left'), 'file');
    const cache = join(own.directory, 'tsx-0');
    await writeFile(path, '');
    await mkdir(cache);
    const fd = openSync(path, 'r');
    expect(await leaks()).toEqual([
      expect.stringMatching(/^temporary file left-/),
      expect.stringMatching(/^open file \d+: .*\/file$/),
    ]);
    closeSync(fd);
    await rm(join(path, '..'), { recursive: true });
    await rm(cache, { recursive: true });
  });

  it('finds a timer and a server, but no timer that keeps nothing alive', async () => {
    const before = countHandles();
    // The runner has timers of its own that come and go meanwhile, one or two; so many more are ours.
    const timers = Array.from({ length: 9 }, () => setTimeout(() => undefined, 60_000));
    const idle = setTimeout(() => undefined, 60_000);
    idle.unref();
    const server = createServer().listen(join(await testDirectory(), 's'));
    await once(server, 'listening');
    const found = await findLeaks(own, before);
    expect(found).toContainEqual(expect.stringMatching(/^([7-9]|1[01]) more open Timeout$/));
    expect(found).toContain('1 more open PipeWrap');
    for (const timer of timers) clearTimeout(timer);
    clearTimeout(idle);
    server.close();
  });
});

describeWith(['root', 'ip', 'tun'], 'findLeaks on the host', () => {
  it('finds a network namespace that carries our name', async () => {
    const name = `roost-test-${own.id}`;
    await run('ip', ['netns', 'add', name]);
    expect(await leaks()).toEqual(expect.arrayContaining([`network namespace ${name}`]));
    await run('ip', ['netns', 'del', name]);
    expect(await leaks()).not.toContain(`network namespace ${name}`);
  });

  it('finds a link of an instance that was named', async () => {
    const instance = own.id.slice(-4);
    const link = `rt${instance}`;
    await run('ip', ['link', 'add', link, 'type', 'bridge']);
    expect(await leaks()).not.toContain(`link ${link}`);
    trackInstance(instance);
    expect(await leaks()).toContain(`link ${link}`);
    await run('ip', ['link', 'del', link]);
    expect(await leaks()).not.toContain(`link ${link}`);
  });

  it('finds either end of a veth pair of an instance that was named', async () => {
    const instance = `v${own.id.slice(-4)}`;
    const [link, peer] = [`rv${instance}10`, `rp${instance}10`];
    trackInstance(instance);
    await run('ip', ['link', 'add', link, 'type', 'veth', 'peer', 'name', peer]);
    expect(await leaks()).toEqual(expect.arrayContaining([`link ${link}`, `link ${peer}`]));
    await run('ip', ['link', 'del', link]);
    expect(await leaks()).not.toContainEqual(expect.stringContaining(instance));
  });
});

/** `roost console` in a real terminal on a real guest's serial line, and the log of that line. */
import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { connect } from '../../cli/client.ts';
import { sessionOutput } from '../../cli/session-output.ts';
import { deferred } from '../../lib/abort.ts';
import type { SessionEnd } from '../../protocol/byte-session.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, testDaemonHome } from '../harness/real-daemon.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { Terminal } from '../harness/terminal.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

const banner = 'ROOST-BOOT-SECTOR';
const CTRL_RIGHT_BRACKET = '\u001d';

const consoleIn = (home: DaemonHome, guest: string): Terminal =>
  new Terminal(
    `echo "before $(stty -g)"; "${process.execPath}" "${roostProgram}" console "${guest}" --socket "${home.runDirectory}/roost.sock"; echo "code $?"; echo "after $(stty -g)"`,
  );

/** What the guest's console writes, and wrote before. */
const attach = async (home: DaemonHome, guest: string): Promise<ReturnType<typeof sessionOutput>> => {
  const socketPath = join(home.runDirectory, 'roost.sock');
  const client = await connect({ socketPath, signal: new AbortController().signal });
  onTestFinished(() => client.close());
  const socket = await client.attach('guest-console', { guest, framed: true, replayBytes: 4096 });
  return sessionOutput(socket);
};

const readToEnd = async (
  output: ReturnType<typeof sessionOutput>,
): Promise<{ readonly text: string; readonly end: SessionEnd | undefined }> => {
  let text = '';
  for (;;) {
    const next = await output.next();
    if (next.done === true) return { text, end: next.value };
    text += next.value.toString('latin1');
  }
};

const fact = (output: string, name: string): string | undefined =>
  new RegExp(`${name} (\\S+)`).exec(output)?.[1];

const countBanners = (text: string): number => text.split(banner).length - 1;

/** Resolves once the file has more banners than so many; looked at after each write to it. */
const moreBanners = (path: string, than: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const watcher = watch(path);
    const look = (): void => {
      readFile(path, 'latin1').then((text) => {
        if (countBanners(text) <= than) return;
        watcher.close();
        resolve();
      }, reject);
    };
    watcher.on('change', look);
    watcher.on('error', reject);
    look();
  });

describeWith(['root', 'qemu', 'qemu-img'], 'the console of a guest', () => {
  it('carries what is typed to the guest and back, leaves at Ctrl-] and restores the terminal', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'echo');
    await daemon.succeed('guest-create', { ...tinyGuest('parrot', 'echo'), start: true });
    const terminal = consoleIn(home, 'parrot');
    await terminal.seen('Ctrl-] leaves');
    await terminal.seen(banner);
    // Ctrl-C is the guest's as any other key: what is typed after it comes back too.
    terminal.type('hello, \u0003parrot!');
    await terminal.seen('parrot!');
    terminal.type(`${CTRL_RIGHT_BRACKET}not sent`);
    await terminal.ended();
    expect(terminal.output).toContain('Left the console of parrot.');
    expect(fact(terminal.output, 'code')).toBe('0');
    expect(fact(terminal.output, 'before')).toMatch(/^[0-9a-f:]+$/);
    expect(fact(terminal.output, 'after')).toBe(fact(terminal.output, 'before'));
    // The log is written by the guest's own process: what stands there came from the guest and not from the terminal.
    const { stdout, code } = await runRoost(home, ['logs', 'parrot']);
    expect({ stdout, code }).toEqual({ stdout: expect.stringContaining('hello, \u0003parrot!'), code: 0 });
    expect(stdout).not.toContain('not sent');
    expect((await daemon.guest('parrot')).state).toBe('running');
  });

  it('shows the same to everyone who is attached, and goes on for one when the other leaves', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'echo');
    await daemon.succeed('guest-create', { ...tinyGuest('parrot', 'echo'), start: true });
    const [first, second] = [consoleIn(home, 'parrot'), consoleIn(home, 'parrot')];
    await Promise.all([first.seen(banner), second.seen(banner)]);
    first.type('typed at the first');
    await Promise.all([first, second].map((terminal) => terminal.seen('typed at the first')));
    first.type(CTRL_RIGHT_BRACKET);
    await first.ended();
    second.type('typed at the second');
    await second.seen('typed at the second');
    // The guest's end is the console's.
    await daemon.succeed('guest-stop', { guest: 'parrot', force: true });
    await second.ended();
    expect(second.output).toContain('The console of parrot closed: the guest ended.');
    expect(fact(second.output, 'code')).toBe('0');
    expect(first.output).not.toContain('typed at the second');
    expect((await runRoost(home, ['console', 'parrot'])).code).toBe(1);
  });

  it('goes on behind the end of a pipe, and tells everybody that is attached why it is over', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'echo');
    await daemon.succeed('guest-create', { ...tinyGuest('parrot', 'echo'), start: true });
    const readers = await Promise.all(Array.from({ length: 5 }, () => attach(home, 'parrot')));
    const outputs = readers.map(readToEnd);
    const heard = deferred<void>();
    const piped = runRoost(home, ['console', 'parrot'], {
      stdin: 'said by a pipe',
      onStdout: (text) => {
        if (text.includes('said by a pipe')) heard.resolve();
      },
    });
    await heard.promise;
    await daemon.succeed('guest-stop', { guest: 'parrot', force: true });
    expect(await piped).toMatchObject({ code: 0, stdout: expect.stringContaining(banner), stderr: '' });
    for (const output of outputs)
      expect(await output).toEqual({
        text: expect.stringContaining('said by a pipe'),
        end: { closed: 'guest-ended' },
      });
  });

  it('has in its log what the guest wrote while the daemon was away', async () => {
    const home = await testDaemonHome();
    const before = await home.start();
    await importBootSector(before, 'reset');
    const id = await before.succeed('guest-create', { ...tinyGuest('restless', 'reset'), start: true });
    await before.kill9();
    const path = join(home.stateDirectory, 'guests', id, 'log', 'console.log');
    const soFar = countBanners(await readFile(path, 'latin1'));
    await moreBanners(path, soFar + 1);

    const after = await home.start();
    const { stdout } = await runRoost(home, ['logs', 'restless']);
    expect(countBanners(stdout)).toBeGreaterThan(soFar + 1);
    const following = await runRoost(home, ['logs', '--follow', '--bytes', '1', 'restless'], {
      interruptAt: banner,
    });
    expect(following.code).toBe(130);
    await after.succeed('guest-stop', { guest: 'restless', force: true });
  });
});

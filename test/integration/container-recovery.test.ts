/** The console of a container, and what a kill of its daemon leaves: all of it, in every state. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import {
  agentUp,
  beginWithBusybox,
  type ContainerHome,
  container,
  execIn,
  initPidOf,
  isAlive,
  liblxc,
  lxcInfo,
  shellIn,
  startContainer,
} from '../harness/containers.ts';
import { openGuestConsole } from '../harness/guest-console.ts';
import { leaveNothing } from '../harness/leave-nothing.ts';
import { describeWith } from '../harness/needs.ts';
import { waitForConsole } from '../harness/real-daemon.ts';
import { roostProgram, runRoost } from '../harness/roost-cli.ts';
import { Terminal } from '../harness/terminal.ts';

const CTRL_RIGHT_BRACKET = '\u001d';

/** A row of `lxc-ls -f`, by the name of the container. */
const listed = async ({ home }: Pick<ContainerHome, 'home'>, id: string): Promise<readonly string[]> => {
  const table = await liblxc(home, 'lxc-ls', '-f');
  const row = table.split('\n').find((line) => line.startsWith(id));
  return row?.split(/\s+/) ?? [];
};

describeWith(['root', 'lxc', 'sqfstar', 'nft', 'ip', 'dnsmasq'], 'a container', () => {
  it('has a console that carries what is typed and back, and a log of it', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    const init = ['/bin/sh', '-c', 'stty raw -echo; echo parrot; exec cat'];
    await daemon.succeed('guest-create', { ...container('parrot', { init }), start: true });
    const terminal = new Terminal(
      `"${process.execPath}" "${roostProgram}" console parrot --socket "${home.runDirectory}/roost.sock"; echo "code $?"`,
    );
    await terminal.seen('parrot');
    // Ctrl-C is the container's as any other key.
    terminal.type('hello, \u0003there!');
    await terminal.seen('there!');
    terminal.type(CTRL_RIGHT_BRACKET);
    await terminal.ended();
    expect(terminal.output).toContain('code 0');
    expect((await runRoost(home, ['logs', 'parrot'])).stdout).toContain('hello, \u0003there!');
    // What it wrote before somebody came is seen by them.
    using console = await openGuestConsole(daemon, 'parrot');
    await console.seen('there!');
    await daemon.succeed('guest-stop', { guest: 'parrot', force: true });
    await expect(console.seen('nothing more')).rejects.toThrow('guest-ended');
    await leaveNothing(at);
  });

  it('writes its log on while its daemon is away, and has its end told by the next one', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    const count = 'n=0; until [ -e /run/end ]; do n=$((n+1)); echo "line $n."; sleep 0.05; done; exit 9';
    await startContainer(at, 'talks', { init: ['/bin/sh', '-c', count] });
    const { id } = await daemon.guest('talks');
    await daemon.kill9();
    const path = join(home.stateDirectory, 'guests', id, 'log', 'console.log');
    const highest = async (): Promise<number> =>
      Math.max(0, ...[...(await readFile(path, 'utf8')).matchAll(/line (\d+)\./g)].map(([, n]) => Number(n)));
    const before = await highest();
    while ((await highest()) < before + 5);
    const next = await home.start();
    const { stdout } = await runRoost(home, ['logs', 'talks']);
    for (let n = 1; n <= before + 5; n += 1) expect(stdout).toContain(`line ${n}.`);
    await agentUp(next, 'talks');
    await shellIn({ home }, 'talks')('touch /run/late; (sleep 0.5; touch /run/end) >/dev/null 2>&1 &');
    await next.kill9();
    const init = await initPidOf(home, id);
    while (await isAlive(init));
    const last = await home.start();
    expect(await last.guest('talks')).toMatchObject({
      state: 'failed',
      lastExit: { cause: 'crashed', exitCode: 9 },
    });
    await leaveNothing({ home, daemon: last });
  });

  it('is taken over in every state by the daemon after one that was killed, and liblxc says the same of it', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
    const nics = [{ network: 'lan' }];
    for (const name of ['runs', 'rests']) await startContainer(at, name, { nics });
    await daemon.succeed('guest-create', container('stopped', { nics }));
    await daemon.succeed('guest-pause', { guest: 'rests' });
    await daemon.succeed('guest-start', { guest: 'stopped' });
    await daemon.succeed('guest-stop', { guest: 'stopped' });
    const names = ['runs', 'rests', 'stopped'];
    const before = await Promise.all(names.map((name) => daemon.guest(name)));
    await daemon.kill9();

    const next = await home.start();
    const after = await Promise.all(names.map((name) => next.guest(name)));
    for (const [index, { id, state, process, nics: found }] of after.entries()) {
      expect({ id, state, process, nics: found }).toEqual({
        id: before[index]?.id,
        state: before[index]?.state,
        process: before[index]?.process,
        nics: before[index]?.nics,
      });
    }
    await agentUp(next, 'runs');
    expect((await execIn(at, 'runs')('hostname')).stdout).toBe('runs\n');
    await next.succeed('guest-resume', { guest: 'rests' });
    await agentUp(next, 'rests');
    expect(await shellIn(at, 'rests')(`ping -c 1 -W 5 ${before[0]?.nics[0]?.ipv4}`)).toContain(
      '1 packets received',
    );
    await next.succeed('guest-pause', { guest: 'rests' });
    expect(await runRoost(home, ['fsck'])).toMatchObject({ code: 0 });

    const words = { runs: 'RUNNING', rests: 'FROZEN', stopped: 'STOPPED' } as const;
    for (const name of names) {
      const { id, state, nics: found } = await next.guest(name);
      const info = await lxcInfo(home, id);
      const row = await listed(at, id);
      expect({ name, state: info.get('State') }).toEqual({ name, state: words[name as keyof typeof words] });
      expect(row[1]).toBe(info.get('State'));
      if (state === 'stopped') continue;
      expect(info.get('IP')).toBe(found[0]?.ipv4);
      expect(row.join(' ')).toContain(`${found[0]?.ipv4} `);
      // liblxc's number of the init is that of the process which has the guest's number 1.
      const status = await readFile(`/proc/${info.get('PID')}/status`, 'utf8');
      expect(status).toMatch(/^NSpid:\t\d+\t1$/m);
    }
    await next.stop();
    const { ledger, host } = await home.compare();
    expect(host).toEqual(ledger);
    const last = await home.start();
    await leaveNothing({ home, daemon: last });
  });

  it('that is killed with its daemon, frozen, is gone for the next one, which starts it again', async () => {
    const at = await beginWithBusybox();
    const { home, daemon } = at;
    await startContainer(at, 'one');
    const { id, process: warden } = await daemon.guest('one');
    const init = await initPidOf(home, id);
    await daemon.succeed('guest-pause', { guest: 'one' });
    await daemon.kill9();
    process.kill(warden?.pid ?? 0, 'SIGKILL');
    const next = await home.start();
    expect(await next.guest('one')).toMatchObject({ state: 'failed', lastExit: { cause: 'unknown' } });
    expect(await isAlive(init)).toBe(false);
    await next.succeed('guest-start', { guest: 'one' });
    await waitForConsole(next, 'one', (text) => text.split('busybox is up').length > 2);
    await leaveNothing({ home, daemon: next });
  });
});

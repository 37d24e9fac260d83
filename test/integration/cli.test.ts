/** The first ten minutes of the README at the prompt, as it stands there, and what scripts rely on. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { bootSectorDisk } from '../guests/boot-sector.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, testDaemonHome, waitForConsole } from '../harness/real-daemon.ts';
import { runRoost } from '../harness/roost-cli.ts';
import { testDirectory } from '../harness/test-directory.ts';

const banner = 'ROOST-BOOT-SECTOR';
const PUBLIC_KEY = '~/.ssh/id_ed25519.pub';

/** The lines of `roost` in the README's first ten minutes, without their comments. */
const readmeLines = async (): Promise<readonly string[]> => {
  const readme = await readFile(join(import.meta.dirname, '../../README.md'), 'utf8');
  const section = readme.slice(readme.indexOf('## The first ten minutes'));
  const block = /```sh\n(.*?)```/s.exec(section)?.[1] ?? '';
  const lines = block.split('\n').map((line) => line.replace(/\s+#.*$/, ''));
  return lines.filter((line) => line.startsWith('roost '));
};

/** What `make run` makes: an image, a network and a running guest. The guest is a boot sector, so that it takes no time. */
const likeMakeRun = async (home: DaemonHome): Promise<void> => {
  const path = join(await testDirectory('image'), 'debian.raw');
  await writeFile(path, bootSectorDisk('acpi'));
  const lines = [
    `image import debian ${path} --format raw`,
    'network create default --kind nat',
    'create first --image debian --network default --memory 16MiB --accel tcg --start',
  ];
  for (const line of lines)
    expect({ line, ...(await runRoost(home, line.split(' '))) }).toMatchObject({ line, code: 0, stderr: '' });
};

/** A part of what each line of the README prints. */
const expected: Readonly<Record<string, string | RegExp>> = {
  'roost ls': /^NAME +STATE.*\nfirst +running/i,
  'roost host': 'Accelerator',
  'roost logs -f first': banner,
  'roost image ls': /^debian +\d{8} \* .*disk +ready/m,
  'roost network ls': /^default +nat/m,
  'roost plan first': '-sandbox',
  [`roost create second --image debian --network default --memory 1GiB --user ada --ssh-key ${PUBLIC_KEY} --start`]:
    'second created and started',
  'roost address second': 'reserved',
  'roost show second': /^State: +running/m,
  'roost events -f': 'GUEST_',
  'roost stop second': 'second stopped',
  'roost start second': 'second started',
  'roost update second --restart on-failure': 'second updated',
  'roost delete --force second': 'second deleted',
};

/** A console needs a terminal, the others a guest with a system: they have tests of their own, with a Debian among them. */
const triedElsewhere: ReadonlySet<string> = new Set([
  'roost console first',
  'roost wait second',
  'roost ssh second',
]);

/** Those that go on until Ctrl-C, and what makes one press it. Events are followed from the first one kept. */
const following: Readonly<Record<string, { readonly more: readonly string[]; readonly until: string }>> = {
  'roost logs -f first': { more: [], until: banner },
  'roost events -f': { more: ['--since', '0'], until: 'GUEST_STATE_CHANGED' },
};

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'roost at the prompt', () => {
  it('does what the README says of the first ten minutes', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await likeMakeRun(home);
    const publicKeyPath = join(await testDirectory('key'), 'id_ed25519.pub');
    await writeFile(
      publicKeyPath,
      `ssh-ed25519 ${'A'.repeat(4)}C3NzaC1lZDI1NTE5AAAAIPNIjWYfJZW2NMMcbMYb8 reader\n`,
    );
    const lines = (await readmeLines()).filter((line) => !triedElsewhere.has(line));
    expect(lines).toEqual(Object.keys(expected));
    for (const line of lines) {
      // The power button does nothing before the guest looks at it.
      if (line === 'roost stop second')
        await waitForConsole(daemon, 'second', (text) => text.includes(banner));
      const words = line.replace(PUBLIC_KEY, publicKeyPath).split(' ').slice(1);
      const { more = [], until } = following[line] ?? {};
      const options = until === undefined ? {} : { interruptAt: until };
      const { code, stdout, stderr } = await runRoost(home, [...words, ...more], options);
      expect({ line, code, stderr }).toEqual({ line, code: until === undefined ? 0 : 130, stderr: '' });
      expect(stdout).toMatch(expected[line] ?? '');
    }
    const { guests } = await daemon.client.call('query-guests', { fields: ['name', 'state'] });
    expect(guests).toEqual([{ name: 'first', state: 'running' }]);
  });

  it('ends with the code that scripts rely on, and says why', async () => {
    const home = await testDaemonHome();
    const unreachable = await runRoost(home, ['ls']);
    expect(unreachable).toMatchObject({ code: 4, stdout: '', stderr: expect.stringContaining('bin/roostd') });
    const daemon = await home.start();
    const ends: readonly (readonly [string, number, string])[] = [
      ['show nobody', 3, 'nobody'],
      ['start nobody', 3, 'nobody'],
      ['logs nobody', 3, 'nobody'],
      ['operation show 00000000-0000-4000-8000-000000000000', 3, 'There is no operation'],
      ['create Not_a_Label --image x', 2, 'DNS label'],
      ['create one --image nothing', 3, 'nothing'],
      ['create one --memory lots', 2, 'lots'],
      ['strat one', 2, 'start'],
      ['ls --colour', 2, '--colour'],
      ['stop', 2, 'NAME'],
      ['image import missing /nonexistent/file', 3, '/nonexistent/file'],
      ['api no-such-command', 2, 'no-such-command'],
      ['api query-guest {', 2, 'JSON'],
    ];
    for (const [line, code, words] of ends) {
      const ran = await runRoost(home, line.split(' '));
      expect({ line, ...ran }).toEqual({ line, code, stdout: '', stderr: expect.stringContaining(words) });
    }
    expect((await daemon.client.call('query-guests', {})).total).toBe(0);
    await daemon.kill9();
    expect((await runRoost(home, ['ls'])).code).toBe(4);
  });

  it('gives every answer as JSON, failures too', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await likeMakeRun(home);
    await waitForConsole(daemon, 'first', (text) => text.includes(banner));
    const parsed = async (line: string, options = {}): Promise<unknown> => {
      const { code, stdout, stderr } = await runRoost(home, [...line.split(' '), '--json'], options);
      expect({ line, code, stderr }).toEqual({ line, code: 0, stderr: '' });
      return JSON.parse(stdout);
    };
    expect(await parsed('show first')).toEqual(await daemon.guest('first'));
    expect(await parsed('ls --all-fields')).toEqual(await daemon.client.call('query-guests', {}));
    expect(await parsed('image ls')).toMatchObject({
      images: [{ name: 'debian', usedBy: ['first'] }],
    });
    expect(await parsed('network ls')).toMatchObject({
      networks: [{ name: 'default', kind: 'nat' }],
    });
    expect(await parsed('pool ls')).toMatchObject({ pools: [{ name: 'default' }] });
    expect(await parsed('host')).toMatchObject({ privileged: true });
    expect(await parsed('daemon')).toMatchObject({ pid: daemon.pid, ready: true, guests: 1 });
    expect(await parsed('plan first')).toMatchObject({ argv: expect.arrayContaining(['-sandbox']) });
    expect(await parsed('events --all')).toMatchObject({ events: expect.any(Array) });
    expect(await parsed('version')).toEqual({ client: expect.any(String), daemon: expect.any(String) });
    expect(await parsed('logs first')).toMatchObject({ text: expect.stringContaining(banner) });
    expect(await parsed('api query-guest -', { stdin: '{"guest": "first"}' })).toMatchObject({
      name: 'first',
    });
    expect(await parsed('stop first')).toMatchObject({ kind: 'guest-stop', state: 'succeeded' });
    expect(await parsed('delete first')).toMatchObject({ kind: 'guest-delete', state: 'succeeded' });

    const failed = await runRoost(home, ['show', 'first', '--json']);
    expect(failed).toMatchObject({ code: 3, stdout: '' });
    expect(JSON.parse(failed.stderr)).toMatchObject({ error: { class: 'NotFound' } });
  });
});

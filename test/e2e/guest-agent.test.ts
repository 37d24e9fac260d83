/**
 * The QEMU guest agent of a real Debian, at the prompt and through the whole daemon: programs, files, addresses, file
 * systems frozen and thawed, a stop by the agent, and a stop by the power button while the agent answers nobody. Two
 * boots of one guest.
 */
import { createHash, randomBytes } from 'node:crypto';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { MEBIBYTE } from '../../protocol/types.ts';
import { debianBootTimeoutMs, debianImage, debianImageTimeoutMs } from '../guests/debian-image.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { type RoostRun, runRoost } from '../harness/roost-cli.ts';
import { TestClient } from '../harness/test-client.ts';
import { testDirectory } from '../harness/test-directory.ts';

const GIBIBYTE = 1024 * MEBIBYTE;
const web = { guest: 'web' } as const;
/** For one answer of an agent under TCG on a busy machine. */
const timeoutMs = 120_000;
let image: string;

/** A daemon's home with the commands that this test types. */
class Prompt {
  readonly #home: DaemonHome;

  constructor(home: DaemonHome) {
    this.#home = home;
  }

  run(...args: readonly string[]): Promise<RoostRun> {
    return runRoost(this.#home, args);
  }

  /** Standard output of a command that has to succeed. */
  async succeed(...args: readonly string[]): Promise<string> {
    const ended = await this.run(...args);
    if (ended.code !== 0)
      throw new Error(`roost ${args.join(' ')} ended with ${ended.code}: ${ended.stderr}${ended.stdout}`);
    return ended.stdout;
  }

  /** A client with every event from now on, or from a sequence on. */
  async watch(since?: number): Promise<TestClient> {
    const client = await TestClient.connect(join(this.#home.runDirectory, 'roost.sock'), since);
    onTestFinished(() => client[Symbol.asyncDispose]());
    return client;
  }
}

/** Starts the guest and waits until its agent has told who it is. */
const boot = async (daemon: RealDaemon, watcher: TestClient): Promise<void> => {
  const from = watcher.events.length;
  await daemon.succeed('guest-start', web);
  await watcher.waitForEvent(
    ({ event, data }) => event === 'GUEST_AGENT_CHANGED' && data['version'] !== undefined,
    AbortSignal.timeout(debianBootTimeoutMs),
    from,
  );
};

const lastExitCause = async (daemon: RealDaemon): Promise<unknown> => {
  const { events } = await daemon.client.call('query-events', { since: 0, events: ['GUEST_EXITED'] });
  return events.at(-1)?.data['cause'];
};

/** What the journal of the guest's newest operation says that was done. */
const account = async (daemon: RealDaemon): Promise<string> => {
  const { operations } = await daemon.client.call('query-operations', { subject: 'web' });
  const [newest] = operations;
  if (!newest) throw new Error('The guest has no operation');
  return JSON.stringify(await daemon.client.call('query-operation', { operation: newest.id }));
};

const programs = async (roost: Prompt): Promise<void> => {
  const program = 'echo out; echo err >&2; exit 7';
  expect(await roost.run('exec', 'web', '--', 'sh', '-c', program)).toEqual({
    code: 7,
    stdout: 'out\n',
    stderr: 'err\n',
  });
  const killed = await roost.run('exec', 'web', '--', 'sh', '-c', 'kill -TERM $$');
  expect(killed).toEqual({ code: 128 + 15, stdout: '', stderr: '' });
  expect(await roost.run('exec', 'web', '--', '/nowhere/program')).toMatchObject({ code: 1, stdout: '' });
};

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

const files = async (roost: Prompt): Promise<void> => {
  const directory = await testDirectory('files');
  const here = join(directory, 'here');
  const back = join(directory, 'back');
  // Several pieces, the last of them not whole.
  const content = randomBytes(300_001);
  await writeFile(here, content);
  await chmod(here, 0o640);
  await roost.succeed('cp', here, 'web:/root/there');
  const said = await roost.succeed(
    'exec',
    'web',
    '--',
    'sh',
    '-c',
    'cd /root; sha256sum there; stat -c %a there',
  );
  expect(said).toBe(`${sha256(content)}  there\n640\n`);
  await roost.succeed('cp', 'web:/root/there', back);
  expect(sha256(await readFile(back))).toBe(sha256(content));
  expect((await stat(back)).size).toBe(content.length);
};

const addresses = async (daemon: RealDaemon, roost: Prompt): Promise<void> => {
  const [nic] = (await daemon.guest('web')).nics;
  const { interfaces } = await daemon.client.call('guest-network-get-interfaces', { ...web, timeoutMs });
  const ours = interfaces.find(({ hardwareAddress }) => hardwareAddress === nic?.mac);
  expect(ours?.ipAddresses).toContainEqual(expect.objectContaining({ ipAddress: nic?.ipv4 }));
  expect(await roost.succeed('agent', 'web')).toContain(`${nic?.ipv4}/`);
};

const freezing = async (daemon: RealDaemon, roost: Prompt): Promise<void> => {
  await roost.succeed('freeze', 'web', '--for', '10m', '--timeout', '2m');
  expect((await daemon.guest('web')).frozen).toEqual({
    since: expect.any(Number),
    thawAt: expect.any(Number),
  });
  expect(await roost.succeed('show', 'web')).toMatch(/^Frozen: /m);
  expect(await roost.succeed('agent', 'web')).toMatch(/^File systems: +frozen/m);
  const refused = await roost.run('exec', 'web', '--', 'true');
  expect(refused).toMatchObject({ stdout: '', stderr: expect.stringContaining('disabled') });
  await roost.succeed('thaw', 'web', '--timeout', '2m');
  expect(await daemon.guest('web')).not.toHaveProperty('frozen');
  expect(await daemon.client.call('guest-fsfreeze-status', { ...web, timeoutMs })).toEqual({
    status: 'thawed',
  });
  await roost.succeed('exec', 'web', '--', 'sh', '-c', 'echo written >/root/after && sync');
};

/** Freezes, kills the daemon, and sees the next one thaw when the time is over. Gives that one. */
const freezeOverACrash = async (home: DaemonHome, before: RealDaemon, roost: Prompt): Promise<RealDaemon> => {
  await before.succeed('guest-fsfreeze-freeze', { ...web, timeoutMs: 20_000, forMs: 20_000 });
  await before.kill9();
  const daemon = await home.start();
  const watcher = await roost.watch(0);
  const over = await watcher.waitForEvent(
    ({ event, data }) => event === 'GUEST_FSFREEZE_CHANGED' && data['why'] === 'deadline',
    AbortSignal.timeout(timeoutMs),
  );
  expect(over.data).toMatchObject({ name: 'web', status: 'thawed' });
  expect(await daemon.guest('web')).not.toHaveProperty('frozen');
  await roost.succeed('exec', 'web', '--', 'sh', '-c', 'echo written >/root/later && sync');
  return daemon;
};

/**
 * Lets the agent stop itself by a program of its own, and waits until that shows. Either the start of the program or its
 * end is what the agent never tells.
 */
const stopTheAgent = async (daemon: RealDaemon): Promise<void> => {
  const asked = { ...web, timeoutMs: 5_000 };
  const program = { path: 'sh', arg: ['-c', 'kill -STOP $(pidof qemu-ga)'] };
  const { pid } = await daemon.client.call('guest-exec', { ...asked, ...program });
  await daemon.client.call('guest-exec-status', { ...asked, pid, waitMs: timeoutMs });
};

describeWith(
  ['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun', 'mmdebstrap'],
  'the guest agent of a Debian',
  () => {
    beforeAll(async () => {
      image = await debianImage();
    }, debianImageTimeoutMs);

    it('runs programs, copies files, tells addresses, freezes, and holds nobody up when it is stopped', {
      timeout: 3 * debianBootTimeoutMs,
    }, async () => {
      const home = await testDaemonHome();
      let daemon = await home.start();
      const roost = new Prompt(home);
      await daemon.succeed('image-import', { name: 'debian', path: image });
      await daemon.succeed('network-create', { name: 'lan', kind: 'nat' });
      await daemon.succeed('guest-create', {
        name: 'web',
        memoryBytes: GIBIBYTE,
        disks: [{ image: 'debian', sizeBytes: 4 * GIBIBYTE }],
        nics: [{ network: 'lan' }],
        cloudInit: {},
        qemu: { accel: 'tcg' },
        stopTimeoutMs: debianBootTimeoutMs,
      });
      await boot(daemon, await roost.watch());
      // The agent is there long before the end of the boot, which is when the guest has its addresses.
      expect(await roost.run('exec', 'web', '--', 'cloud-init', 'status', '--wait')).toMatchObject({
        code: 0,
      });
      await programs(roost);
      await files(roost);
      await addresses(daemon, roost);
      await freezing(daemon, roost);
      daemon = await freezeOverACrash(home, daemon, roost);
      await roost.succeed('stop', 'web', '--mode', 'agent');
      expect(await lastExitCause(daemon)).toBe('guest-shutdown');
      const byAgent = await account(daemon);
      expect(byAgent).toContain('the agent took the request to shut down');
      expect(byAgent).not.toContain('power button');

      await boot(daemon, await roost.watch());
      await expect(stopTheAgent(daemon)).rejects.toMatchObject({ wire: { class: 'Unavailable' } });
      expect((await daemon.guest('web')).agent).toMatchObject({ state: 'silent' });
      const refused = await roost.run('exec', 'web', '--', 'true');
      expect(refused).toMatchObject({ stdout: '', stderr: expect.stringContaining('did not answer within') });
      expect(refused.code).not.toBe(0);
      // One who waits for the agent for longer than this test takes; nobody else does.
      const patient = await roost.watch();
      const hanging = patient.call('guest-info', { ...web, timeoutMs: 600_000 });
      hanging.catch(() => undefined);
      expect(await roost.succeed('ls')).toMatch(/web +running/);
      await roost.succeed('update', 'web', '--description', 'changed meanwhile');
      await roost.succeed('stop', 'web');
      await expect(hanging).rejects.toMatchObject({ class: 'Unavailable' });
      expect(await lastExitCause(daemon)).toBe('guest-shutdown');
      expect(await account(daemon)).toContain('power button');

      await roost.succeed('delete', 'web');
      await daemon.succeed('network-delete', { network: 'lan' });
      await daemon.succeed('image-delete', { image: 'debian' });
      await daemon.stop();
      expect(await home.compare()).toEqual({ ledger: [], host: [] });
    });
  },
);

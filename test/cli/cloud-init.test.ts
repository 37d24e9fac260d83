/** What `create` and `update` read for cloud-init: texts, keys and a password from files, terminal and standard input. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { exec } from '../../lib/exec.ts';
import { FakeDaemon, OPERATION } from './fake-daemon.ts';
import { type Ran, type RunOptions, runCli } from './run-cli.ts';

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6imP1CZrBSyKBB837EfRjO6HS+pi24WoSPrQxTTbjm me@home';
const OTHER = 'restrict,command="date -u" ecdsa-sha2-nistp256 AAAAE2VjZHNh';

let daemon: FakeDaemon;
let directory: string;
let warnings: readonly string[] = [];

beforeAll(async () => {
  const accepted = () => ({ operation: OPERATION, id: 'x', ...(warnings.length > 0 ? { warnings } : {}) });
  daemon = await FakeDaemon.start({
    'guest-create': accepted,
    'guest-update': accepted,
    'query-guest-cloud-init': () => ({
      'meta-data': 'instance-id: x\n',
      'user-data': '#cloud-config\n{}\n',
      'network-config': 'version: 2\n',
    }),
  });
  directory = await mkdtemp(join(tmpdir(), 'roost-cli-'));
});
afterAll(async () => {
  await daemon[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});
afterEach(() => {
  daemon.calls.length = 0;
  warnings = [];
});

const roost = (argv: readonly string[], options: RunOptions = {}): Promise<Ran> =>
  runCli(argv, { env: { ROOST_SOCKET: daemon.socketPath }, ...options });

const file = async (name: string, content: string | Uint8Array): Promise<string> => {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
};

/** What the command was sent for cloud-init. */
const sent = async (argv: readonly string[], options: RunOptions = {}): Promise<unknown> => {
  expect(await roost(argv, options)).toMatchObject({ code: 0 });
  return daemon.calls[0]?.args['cloudInit'];
};

describe('create', () => {
  it('sends simple settings as they are', async () => {
    expect(await sent(['create', 'a', '--user', 'alice', '--hostname', 'www.example.org'])).toEqual({
      user: 'alice',
      hostname: 'www.example.org',
    });
    daemon.calls.length = 0;
    expect(await sent(['create', 'a', '--cloud-init'])).toEqual({});
    daemon.calls.length = 0;
    expect(await sent(['create', 'a'])).toBeUndefined();
  });

  it('takes keys from the command line and from files', async () => {
    const path = await file('keys', `# mine\n${OTHER}\n\n${KEY}\r\n`);
    expect(await sent(['create', 'a', '--ssh-key', KEY, '--ssh-key', path])).toEqual({
      sshKeys: [KEY, OTHER, KEY],
    });
  });

  it('reads texts byte for byte', async () => {
    const argv = ['create', 'a', '--user', 'alice'];
    for (const name of ['user-data', 'meta-data', 'network-config'])
      argv.push(`--${name}`, await file(name, `${name}: "ä"\r\n`));
    expect(await sent(argv)).toEqual({
      user: 'alice',
      userData: 'user-data: "ä"\r\n',
      metaData: 'meta-data: "ä"\r\n',
      networkConfig: 'network-config: "ä"\r\n',
    });
  });

  it('merges a spec from a file with flags', async () => {
    const spec = await file('spec.json', '{"cloudInit": {"user": "alice", "hostname": "a"}}');
    expect(await sent(['create', 'a', '--from-json', spec, '--hostname', 'b'])).toEqual({
      user: 'alice',
      hostname: 'b',
    });
  });
});

describe('a password', () => {
  /** The hash that was sent, made again with its salt. */
  const expectHashOf = async (cloudInit: unknown, password: string): Promise<void> => {
    const { passwordHash } = cloudInit as { passwordHash: string };
    const [, , salt = ''] = passwordHash.split('$');
    const { stdout } = await exec(['openssl', 'passwd', '-6', '-salt', salt, '-stdin'], {
      signal: new AbortController().signal,
      input: `${password}\n`,
    });
    expect(passwordHash).toBe(stdout.trim());
  };

  it('is read from standard input, and only its SHA-512 hash is sent', async () => {
    const told = await sent(['create', 'a', '--password'], { stdin: 'hush hush ä\nmore' });
    await expectHashOf(told, 'hush hush ä');
    expect(JSON.stringify(daemon.calls)).not.toContain('hush');
  });

  it('is asked for twice on a terminal, and not shown', async () => {
    const typed = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => typed });
    const shown: string[] = [];
    const ran = await roost(['create', 'a', '--password'], {
      terminal: typed as never,
      onStderr: (text) => {
        shown.push(text);
        if (text === 'Password for the guest: ') typed.write('hush\r');
        if (text.endsWith('\nAgain: ')) typed.write('hush\r');
      },
    });
    expect(ran).toMatchObject({ code: 0 });
    expect(ran.stdout + ran.stderr).not.toContain('hush');
    await expectHashOf(daemon.calls[0]?.args['cloudInit'], 'hush');
  });

  it('is not taken when the two are not the same', async () => {
    const typed = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => typed });
    const ran = await roost(['create', 'a', '--password'], {
      terminal: typed as never,
      onStderr: (text) => {
        if (text === 'Password for the guest: ') typed.write('one\r');
        if (text.endsWith('\nAgain: ')) typed.write('two\r');
      },
    });
    expect(ran).toMatchObject({ code: 2, stderr: expect.stringContaining('not the same') as string });
    expect(daemon.calls).toEqual([]);
  });

  it.each(['', '\n', `${'x'.repeat(256)}\n`])('is refused when none or too long is given', async (stdin) => {
    expect(await roost(['create', 'a', '--password'], { stdin })).toMatchObject({ code: 2 });
    expect(daemon.calls).toEqual([]);
  });

  it('may be a hash of somebody else', async () => {
    expect(await sent(['create', 'a', '--password-hash', '$y$j9T$salt$hash'])).toEqual({
      passwordHash: '$y$j9T$salt$hash',
    });
  });
});

describe('update', () => {
  it('sends what changes, null for what is taken away', async () => {
    const argv = ['update', 'a', '--hostname', 'b', '--no-password', '--user-data', '', '--ssh-key', ''];
    expect(await sent([...argv, '--new-instance-id'])).toEqual({
      hostname: 'b',
      newInstance: true,
      passwordHash: null,
      userData: null,
      sshKeys: [],
    });
  });

  it('takes cloud-init away as a whole', async () => {
    expect(await sent(['update', 'a', '--no-cloud-init'])).toBeNull();
  });
});

describe('what is wrong', () => {
  it('is told with the next step', async () => {
    const secret = await file('id', '-----BEGIN OPENSSH PRIVATE KEY-----\nx\n');
    const packed = await file('packed', new Uint8Array([0x1f, 0x8b, 8, 0xff]));
    const nothing = await file('nothing', '# no key\n');
    const wrong: readonly (readonly [readonly string[], string])[] = [
      [['--ssh-key', secret], `mostly '${secret}.pub'`],
      [['--ssh-key', nothing], 'holds no public keys of SSH'],
      [['--ssh-key', '/nonexistent'], "Cannot read '/nonexistent'"],
      [['--user-data', packed], 'Unpack it first'],
      [['--user-data', '/nonexistent'], "Cannot read '/nonexistent'"],
      [['--password', '--from-json', '-'], 'both read standard input'],
    ];
    for (const [flags, words] of wrong) {
      const ran = await roost(['create', 'a', ...flags]);
      expect(ran).toMatchObject({ code: 2, stdout: '' });
      expect(ran.stderr).toContain(words);
    }
    expect(daemon.calls).toEqual([]);
  });
});

describe('warnings', () => {
  it('go to standard error and change nothing else', async () => {
    warnings = ["user-data: cloud-init knows no 'pakages'"];
    expect(await roost(['create', 'a', '--cloud-init'])).toEqual({
      code: 0,
      stdout: 'a created\n',
      stderr: "warning: user-data: cloud-init knows no 'pakages'\n",
    });
    const { stdout, stderr } = await roost(['update', 'a', '--cloud-init', '--json']);
    expect(JSON.parse(stderr)).toEqual({ warning: warnings[0] });
    expect(JSON.parse(stdout)).toMatchObject({ id: OPERATION });
  });
});

it('cloud-init show prints the files, each under its name', async () => {
  expect(await roost(['cloud-init', 'show', 'a'])).toMatchObject({
    code: 0,
    stdout:
      '==> meta-data <==\ninstance-id: x\n\n==> user-data <==\n#cloud-config\n{}\n\n==> network-config <==\nversion: 2\n\n',
  });
});

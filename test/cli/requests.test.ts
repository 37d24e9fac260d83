/** Command lines and the calls they become, for people to read in golden/requests.txt. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { verbs } from '../../cli/verbs.ts';
import { commandNames } from '../../protocol/commands.ts';
import { aGuest, endedOperation, FakeDaemon, OPERATION } from './fake-daemon.ts';
import { runCli } from './run-cli.ts';

const commandLines: readonly (readonly string[])[] = [
  ['create', 'web1'],
  ['create', 'web1', '--image', 'debian', '--network', 'default', '--start'],
  ['create', 'web1', '-i', 'debian', '-m', '1GiB', '-c', '4', '--cpu-model', 'host', '--machine', 'microvm'],
  ['create', 'web1', '--cpus=4', '--cpu-topology', 'sockets=1,cores=2,threads=2', '--accel', 'tcg'],
  ['create', 'web1', '--disk', 'name=root,image=debian,size=4GiB', '--disk', 'size=1MiB,read-only'],
  ['create', 'web1', '--image', 'debian', '--disk', 'size=1GiB'],
  ['create', 'web1', '--nic', 'network=lan,mac=52:54:00:00:00:01,ipv4=10.0.0.9', '--network', 'default'],
  ['create', 'web1', '--kernel', 'linux', '--initrd', 'rd', '--append', 'console=ttyS0 quiet'],
  ['create', 'web1', '--label', 'tier=front', '--label', 'note=a=b', '--description', 'A web server'],
  ['create', 'web1', '--autostart', '--autostart-order', '5', '--autostart-delay', '2s'],
  ['create', 'web1', '--restart', 'on-failure', '--restart-delay', '500ms', '--stop-timeout', '2m'],
  ['create', 'web1', '--delete-protection', '--driver', 'fake'],
  ['create', 'web1', '--root', 'debian-root', '--network', 'default', '--start'],
  [
    'create',
    'web1',
    '--root',
    'busybox',
    '--init',
    '/bin/sh',
    '--init',
    '-l',
    '--nesting',
    '--processes',
    '64',
  ],
  [
    'create',
    'web1',
    '--root',
    'busybox',
    '--driver',
    'fake',
    '--cap-add',
    'sys_time',
    '--cap-drop',
    'net_raw',
  ],
  ['create', 'web1', '--root', 'busybox', '--read-limit', '8MiB', '--write-limit', '1MiB'],
  ['create', 'web1', '--from-json', '-', '--memory', '512MiB'],
  ['start', 'web1'],
  ['start', 'web1', 'web2', 'web1'],
  ['start', '--paused', 'web1'],
  ['stop', 'web1', '--force'],
  ['stop', 'web1', '-t', '90s'],
  ['stop', '--timeout=1m', '--json', 'web1'],
  ['reset', 'web1'],
  ['pause', 'web1'],
  ['resume', 'web1'],
  ['delete', 'web1', '-f'],
  ['rm', 'web1', 'web2'],
  ['rename', 'web1', 'web2'],
  ['update', 'web1', '--memory', '1GiB'],
  ['update', 'web1', '--cpus', '8'],
  ['update', 'web1', '--label', 'a=b', '--unlabel', 'tier', '--no-autostart'],
  ['update', 'web1', '--restart', 'always', '--no-delete-protection'],
  ['update', 'web1', '--append', 'quiet', '--kernel', 'linux'],
  ['update', 'web1', '--processes', '128', '--no-read-limit', '--write-limit', '2MiB'],
  ['ls'],
  ['list', '--wide', '--state', 'running', '--state', 'paused'],
  ['ls', '--json', '--all-fields', '--label', 'tier=front', '--filter', 'web*'],
  ['show', 'web1'],
  ['cloud-init', 'show', 'web1'],
  ['create', 'web1', '--user', 'alice', '--hostname', 'www', '--password-hash', '$6$salt$hash'],
  ['update', 'web1', '--new-instance-id', '--user', 'alice'],
  ['update', 'web1', '--no-cloud-init'],
  ['save', 'c1'],
  ['save', 'c1', 'site/web@v2'],
  ['clone', 'c1', 'c2'],
  ['clone', 'c1', 'c2', '--start', '--json'],
  ['plan', 'web1'],
  ['disk', 'attach', 'web1', '--size', '1GiB'],
  ['disk', 'attach', 'web1', 'data', '-i', 'debian', '-s', '4GiB', '--read-only'],
  ['disk', 'attach', 'web1', 'data'],
  ['disk', 'detach', 'web1', 'data'],
  ['disk', 'detach', 'web1', 'data', '--delete', '-t', '2m'],
  ['disk', 'resize', 'web1', 'data', '20GiB'],
  ['disk', 'rm', 'web1', 'data'],
  ['disk', 'ls'],
  ['disk', 'ls', 'web1'],
  ['disk', 'map'],
  ['disk', 'map', 'web1'],
  ['create', 'web1', '--image', 'debian', '--cdrom', 'image=installer', '--cdrom', 'name=spare'],
  ['cdrom', 'insert', 'web1', 'installer'],
  ['cdrom', 'eject', 'web1', '-d', 'spare', '--force'],
  ['nic', 'attach', 'web1', 'lan'],
  ['nic', 'attach', 'web1', 'lan', '-n', 'backend', '--mac', '52:54:00:00:00:01', '--ipv4', '10.0.0.9'],
  ['nic', 'detach', 'web1', 'backend', '--timeout', '5m'],
  ['logs', 'web1'],
  ['logs', '--process', '-n', '1KiB', 'web1'],
  ['logs', '--events', 'web1'],
  ['image', 'import', 'debian/12', '/srv/Debian-12.qcow2'],
  ['image', 'import', 'debian/12@12.8', '/srv/Debian-12.IMG', '--sha256', 'a'.repeat(64)],
  ['image', 'import', 'linux', '/srv/vmlinuz.raw', '--kind', 'kernel'],
  ['image', 'import', 'alpine', '/srv/alpine.tar.gz'],
  ['image', 'import', 'alpine', 'https://example.org/root.tar.xz?key=1'],
  ['image', 'import', 'app', '/srv/saved.tar', '--kind', 'oci', '--format', 'docker-archive'],
  ['image', 'import', 'alpine', '/srv/root', '--kind', 'root'],
  ['image', 'import', 'x', '/srv/x.raw'],
  ['image', 'import', 'x', '/srv/x.raw', '--format', 'qcow2'],
  ['image', 'build', 'debian'],
  ['image', 'build', 'debian', '--suite', 'bookworm', '--name', 'deb/12@v1'],
  ['image', 'import', 'debian/12', 'https://example.org/d.qcow2?key=1#x', '--sha512', 'b'.repeat(128)],
  ['image', 'ls'],
  ['image', 'rm', 'debian', 'linux'],
  ['image', 'delete', 'debian', '--all'],
  ['image', 'prune', 'debian', '--keep', '3'],
  ['image', 'alias', 'stable', 'debian/12@20261125'],
  ['image', 'unalias', 'stable'],
  ['network', 'create', 'lan', '--kind', 'isolated', '--subnet', '10.1.2.0/24'],
  ['network', 'ls'],
  ['network', 'delete', 'lan'],
  ['pool', 'ls'],
  ['operation', 'ls'],
  ['operation', 'ls', '--state', 'running', '--subject', 'web1', '-n', '5'],
  ['operation', 'show', OPERATION],
  ['operation', 'wait', OPERATION, '--timeout', '30s'],
  ['operation', 'cancel', OPERATION],
  ['events'],
  ['events', '--since', '5', '--guest', 'web1', '--event', 'GUEST_EXITED'],
  ['token', 'create', 'ci', '--role', 'operate'],
  ['token', 'ls'],
  ['token', 'revoke', 'ci'],
  ['host'],
  ['daemon'],
  ['shutdown-guests', '--timeout', '1m'],
  ['version'],
  ['api', 'query-schema', '{"name":"guest-start"}'],
  ['api', 'query-commands'],
];

const spread = { p50: 0.1, p99: 1.25, max: 3 };
const replies = {
  'query-guests': () => ({ guests: [aGuest()], total: 1 }),
  'query-guest-cloud-init': () => ({ 'meta-data': 'a', 'user-data': 'b', 'network-config': 'c' }),
  'guest-plan': () => ({ argv: ['qemu-system-x86_64', '-S'], objects: [{ kind: 'bridge', name: 'rst1' }] }),
  'query-guest-log': () => ({ text: 'login: ', offset: 0, nextOffset: 7, sizeBytes: 7 }),
  'query-images': () => ({ images: [] }),
  'query-networks': () => ({ networks: [] }),
  'query-pools': () => ({ pools: [] }),
  'query-disks': () => ({
    disks: [
      {
        guest: 'web1',
        name: 'data',
        attached: true,
        readOnly: false,
        sizeBytes: 1_073_741_824,
        serial: 'rs-2',
        files: [
          { path: '/p/data.qcow2', format: 'qcow2', sizeBytes: 1_073_741_824, allocatedBytes: 196_608 },
        ],
      },
    ],
  }),
  'query-operations': () => ({ operations: [endedOperation()] }),
  'operation-cancel': () => endedOperation({ cancelRequested: true }),
  'query-events': () => ({ events: [] }),
  'token-create': () => ({ name: 'ci', role: 'operate', token: 'secret' }),
  'query-tokens': () => ({ tokens: [] }),
  'token-revoke': () => ({ name: 'ci' }),
  'query-host': () => ({
    hostname: 'h',
    kernel: '6.1',
    cpus: 2,
    memory: { totalBytes: 1, availableBytes: 1, committedBytes: 0 },
    accelerator: { auto: 'tcg', why: 'no /dev/kvm' },
    privileged: true,
    privilegedWhy: 'root',
    controlGroups: { kind: 'scope', why: 'systemd' },
    foreignFirewalls: [],
    drivers: [],
    qemuBinaries: [],
  }),
  'query-daemon': () => ({
    version: '0.1.0',
    pid: 1,
    startedAt: 1,
    ready: true,
    instance: 'abcde',
    stateDirectory: '/s',
    runDirectory: '/r',
    memoryBytes: 1,
    guests: 0,
    connections: 1,
    eventLoopLagMs: spread,
    eventLoopBlocks: { count: 0, worst: [], latest: [] },
    commitMs: spread,
    lastEventSequence: 1,
  }),
  'query-schema': () => ({}),
  'query-commands': () => [],
};

const quoted = (word: string): string => (/^[\w./=:,*-]+$/.test(word) ? word : `'${word}'`);

describe('requests', () => {
  let daemon: FakeDaemon;
  beforeAll(async () => {
    daemon = await FakeDaemon.start(replies);
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  it('are what the golden file says, and the contract accepts each', async () => {
    const text: string[] = [];
    for (const argv of commandLines) {
      daemon.calls.length = 0;
      const stdin = '{"memoryBytes":1048576,"cpu":{"count":2}}';
      const ran = await runCli(argv, { env: { ROOST_SOCKET: daemon.socketPath }, stdin });
      expect({ argv, code: ran.code, stderr: ran.code === 0 ? '' : ran.stderr }).toEqual({
        argv,
        code: 0,
        stderr: '',
      });
      expect(daemon.calls).not.toEqual([]);
      const calls = daemon.calls.map(({ command, args }) => `  ${command} ${JSON.stringify(args)}`);
      text.push(`$ roost ${argv.map(quoted).join(' ')}`, ...calls, '');
    }
    await expect(text.join('\n')).toMatchFileSnapshot('golden/requests.txt');
  });

  it('reach every command of the contract by some verb', () => {
    const reached = new Set(verbs.flatMap((verb) => [verb.command, ...(verb.uses ?? [])]));
    // The handshake is every connection's own.
    expect(commandNames.filter((name) => name !== 'qmp_capabilities' && !reached.has(name))).toEqual([]);
  });

  it('take a spec from a file', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'roost-cli-'));
    const path = join(directory, 'spec.json');
    await writeFile(path, '{"description": "from file", "cpu": {"count": 2}}');
    daemon.calls.length = 0;
    const argv = [
      'create',
      'web1',
      '--from-json',
      path,
      '--cpu-model',
      'host',
      '--socket',
      daemon.socketPath,
    ];
    expect(await runCli(argv)).toMatchObject({ code: 0, stdout: 'web1 created\n' });
    await rm(directory, { recursive: true });
    expect(daemon.calls[0]).toEqual({
      command: 'guest-create',
      args: { name: 'web1', description: 'from file', cpu: { count: 2, model: 'host' } },
    });
  });
});

/**
 * Bad input of every kind on a real daemon's socket: QMP's error answer comes, nothing else happens, and the daemon
 * lives and serves the next one.
 */
import { once } from 'node:events';
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { connect as connectSocket, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { JsonValueReader } from '../../lib/json-values.ts';
import type { ErrorClass, WireError } from '../../protocol/errors.ts';
import { MEBIBYTE } from '../../protocol/types.ts';
import { bootSectorDisk } from '../guests/boot-sector.ts';
import { describeWith } from '../harness/needs.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../harness/real-daemon.ts';
import { testDirectory } from '../harness/test-directory.ts';
import { importBootSector, tinyGuest } from '../harness/tiny-guests.ts';

type Message = Readonly<Record<string, unknown>>;

/** A connection that sends whatever bytes it is given. Events are passed over. */
class RawConnection {
  readonly #socket: Socket;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #reader = new JsonValueReader();
  readonly #waiting: Message[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    onTestFinished(() => void socket.destroy());
  }

  /** Without the greeting, and negotiated unless told otherwise. */
  static async open(home: DaemonHome, negotiate = true): Promise<RawConnection> {
    const socket = connectSocket(join(home.runDirectory, 'roost.sock'));
    await once(socket, 'connect');
    const connection = new RawConnection(socket);
    await connection.next();
    if (negotiate) await connection.call('qmp_capabilities');
    return connection;
  }

  send(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  async next(): Promise<Message> {
    for (;;) {
      const message = this.#waiting.shift();
      if (message) return message;
      const { value, done } = await this.#chunks.next();
      if (done === true) throw new Error('The daemon closed the connection');
      for (const result of this.#reader.push(value)) {
        if (result.kind === 'error') throw new Error(`The daemon sent what is no value: ${result.message}`);
        if (!('event' in (result.value as Message))) this.#waiting.push(result.value as Message);
      }
    }
  }

  async call(execute: string, args: unknown = {}): Promise<Message> {
    this.send(JSON.stringify({ execute, arguments: args, id: 1 }));
    return await this.next();
  }
}

/** Everything that a refused command must leave as it is. */
const inventoryOf = async ({ client }: RealDaemon): Promise<unknown> => ({
  guests: await client.call('query-guests', {}),
  images: await client.call('query-images', {}),
  networks: await client.call('query-networks', {}),
  tokens: await client.call('query-tokens', {}),
  operations: await client.call('query-operations', {}),
});

interface Refusal {
  readonly execute: string;
  readonly args: unknown;
  readonly class: ErrorClass;
  /** Of `desc`. */
  readonly says: string | RegExp;
}

const refused = (execute: string, args: unknown, errorClass: ErrorClass, says: string | RegExp): Refusal => ({
  execute,
  args,
  class: errorClass,
  says,
});

/** Sends each and sees it refused, with nothing changed and the connection still of use. */
const expectRefusals = async (
  home: DaemonHome,
  daemon: RealDaemon,
  refusals: readonly Refusal[],
): Promise<void> => {
  const before = await inventoryOf(daemon);
  const connection = await RawConnection.open(home);
  for (const { execute, args, class: errorClass, says } of refusals) {
    const request = `${execute} ${JSON.stringify(args)?.slice(0, 200)}`;
    const { error, id } = (await connection.call(execute, args)) as { error?: WireError; id?: unknown };
    expect({ request, class: error?.class, id }).toEqual({ request, class: errorClass, id: 1 });
    expect(error?.desc).toMatch(says);
    expect(await connection.call('query-version')).toHaveProperty('return');
  }
  expect(await inventoryOf(daemon)).toEqual(before);
};

const stopAndCompare = async (home: DaemonHome, daemon: RealDaemon): Promise<void> => {
  await daemon.stop();
  const { ledger, host } = await home.compare();
  expect(host).toEqual(ledger);
};

const linkNames = async (home: DaemonHome): Promise<string[]> => {
  const links = JSON.parse(await home.run(['ip', '-json', 'link'])) as { readonly ifname: string }[];
  return links.map((link) => link.ifname);
};

const nest = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`;
const version = '{"execute": "query-version", "id": "after"}';

describeWith(['root', 'qemu', 'qemu-img', 'nft', 'ip', 'dnsmasq', 'tun'], 'a daemon given bad input', () => {
  it('answers bytes that are no request with one error, and the request after them', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    const before = await inventoryOf(daemon);
    const connection = await RawConnection.open(home);
    const notValues: readonly (string | Uint8Array)[] = [
      'garbage\n',
      '}}}}\n',
      '{"execute": "query-version",}\n',
      '{"execute": "query-version\n',
      Buffer.from([0x00, 0x01, 0x02, 0x0a]),
      Buffer.concat([Buffer.from('{"execute": "'), Buffer.from([0xc3, 0x28]), Buffer.from('"}\n')]),
      Buffer.concat([Buffer.from('{"execute": "'), Buffer.from([0xff]), Buffer.from('"}\n')]),
      `${nest(1000)}\n`,
      `${nest(100_000)}\n`,
      `{"execute": "query-version", "id": "${'x'.repeat(MEBIBYTE)}"}\n`,
    ];
    const notRequests: readonly string[] = [
      '42 ',
      '"query-version"',
      'null ',
      '[]',
      '{}',
      '{"execute": null}',
      '{"execute": ["query-version"]}',
      '{"execute": "query-version", "arguments": []}',
      '{"execute": "query-version", "arguments": "all"}',
      '{"execute": "query-version", "extra": 1}',
      '{"exec-oob": "query-version"}',
    ];
    for (const bytes of [...notValues, ...notRequests]) {
      const sent = Buffer.from(bytes).toString('latin1', 0, 60);
      connection.send(bytes);
      connection.send(version);
      const { error } = (await connection.next()) as { error?: WireError };
      expect({ sent, class: error?.class }).toEqual({ sent, class: 'InvalidArgument' });
      expect({ sent, ...(await connection.next()) }).toMatchObject({ return: { qemu: {} }, id: 'after' });
    }
    // One value in many pieces is one value; a connection that ends within a value leaves nothing.
    for (const byte of version) connection.send(byte);
    expect(await connection.next()).toMatchObject({ return: { qemu: {} }, id: 'after' });
    const half = connectSocket(join(home.runDirectory, 'roost.sock'));
    await once(half, 'connect');
    half.end('{"execute": "guest-cre');
    await once(half.resume(), 'close');
    const early = await RawConnection.open(home, false);
    expect(await early.call('guest-create', tinyGuest('early', 'idle'))).toMatchObject({
      error: { class: 'CommandNotFound', desc: expect.stringContaining('capabilities negotiation') },
    });
    expect(await inventoryOf(daemon)).toEqual(before);
    await stopAndCompare(home, daemon);
  });

  it('refuses commands and arguments that are none, with no effect', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed('network-create', { name: 'lan', subnet: '10.77.0.0/24' });
    await daemon.succeed('guest-create', tinyGuest('one', 'idle', { deleteProtection: true }));
    const spec = (more: object): object => ({ ...tinyGuest('two', 'idle'), ...more });
    const invalid = (args: unknown, says: string | RegExp): Refusal =>
      refused('guest-create', args, 'InvalidArgument', says);
    const unknownId = '00000000-0000-4000-8000-000000000000';
    await expectRefusals(home, daemon, [
      refused('guest-crate', {}, 'CommandNotFound', 'guest-crate'),
      refused('', {}, 'CommandNotFound', 'not been found'),
      refused('__proto__', {}, 'CommandNotFound', '__proto__'),
      refused('constructor', {}, 'CommandNotFound', 'constructor'),
      refused('qmp_capabilities', {}, 'CommandNotFound', 'already complete'),
      refused('query-guest', {}, 'InvalidArgument', 'guest'),
      refused('query-guest', { guest: 7 }, 'InvalidArgument', 'guest'),
      refused('query-guest', { guest: 'one', more: true }, 'InvalidArgument', 'more'),
      refused('query-guest', { guest: '' }, 'InvalidArgument', 'guest'),
      refused('query-guest', { guest: 'x'.repeat(64) }, 'InvalidArgument', 'guest'),
      refused('query-guest', { guest: unknownId }, 'NotFound', unknownId),
      refused('query-guests', { limit: 0 }, 'InvalidArgument', 'limit'),
      refused('query-guests', { states: ['asleep'] }, 'InvalidArgument', 'states'),
      refused('guest-start', { guest: 'nobody' }, 'NotFound', 'nobody'),
      refused('guest-pause', { guest: 'one' }, 'FailedPrecondition', 'stopped'),
      refused('guest-reset', { guest: 'one' }, 'FailedPrecondition', 'stopped'),
      refused('guest-console', { guest: 'one', framed: true }, 'FailedPrecondition', 'stopped'),
      refused('guest-console', { guest: 'one' }, 'InvalidArgument', 'older than this roostd'),
      refused('guest-delete', { guest: 'one', force: true }, 'FailedPrecondition', 'protected'),
      refused('guest-rename', { guest: 'one', newName: 'One!' }, 'InvalidArgument', 'DNS label'),
      refused('guest-update', { guest: 'one', cpu: { count: 0 } }, 'InvalidArgument', 'cpu.count'),
      refused('guest-update', { guest: 'one', name: 'two' }, 'InvalidArgument', 'name'),
      refused('operation-wait', { operation: unknownId }, 'NotFound', unknownId),
      refused('operation-wait', { operation: 'last' }, 'InvalidArgument', 'operation'),
      refused('operation-cancel', { operation: unknownId }, 'NotFound', unknownId),
      refused('query-operations', { after: 'zzz' }, 'InvalidArgument', 'zzz'),
      refused('events-subscribe', { events: ['NOTHING'] }, 'InvalidArgument', 'events'),
      refused('events-subscribe', { guests: ['nobody'] }, 'NotFound', 'nobody'),
      refused('query-schema', { name: 'nothing' }, 'NotFound', 'nothing'),
      refused('token-revoke', { name: 'nobody' }, 'NotFound', 'nobody'),
      refused('image-delete', { image: 'idle' }, 'FailedPrecondition', 'one'),
      refused('network-create', { name: 'lan' }, 'AlreadyExists', 'lan'),
      refused('network-create', { name: 'x', subnet: '10.77.0.128/25' }, 'AlreadyExists', '10.77.0'),
      refused('network-create', { name: 'x', subnet: '300.0.0.0/8' }, 'InvalidArgument', 'subnet'),
      refused('network-create', { name: 'x', kind: 'bridge' }, 'InvalidArgument', 'kind'),
      invalid(spec({ name: 'Two' }), 'DNS label'),
      invalid(spec({ name: '-two' }), 'DNS label'),
      invalid(spec({ name: '../../etc' }), 'DNS label'),
      invalid(spec({ name: 'two\n' }), 'DNS label'),
      invalid(spec({ name: 'x'.repeat(64) }), 'DNS label'),
      invalid(spec({ memoryBytes: -1 }), 'memoryBytes'),
      invalid(spec({ memoryBytes: 1.5 }), 'memoryBytes'),
      invalid(spec({ memoryBytes: '1GiB' }), 'memoryBytes'),
      invalid(spec({ memoryBytes: MEBIBYTE + 1 }), 'memoryBytes'),
      invalid(spec({ memoryBytes: Number.MAX_SAFE_INTEGER + 1 }), 'memoryBytes'),
      invalid(spec({ disks: [{ image: 'idle', sizeBytes: 512 }] }), 'smaller than its image'),
      invalid(spec({ disks: [{}] }), 'image or a size'),
      invalid(spec({ disks: [] }), 'nothing to boot from'),
      invalid(spec({ cpu: { count: 3, topology: { sockets: 2, cores: 1, threads: 1 } } }), 'topology'),
      invalid(spec({ cpu: { model: 'max;reboot' } }), 'cpu.model'),
      invalid(spec({ machine: 'q35,kernel=/etc/shadow' }), 'machine'),
      invalid(spec({ driver: 'docker' }), 'driver'),
      invalid(spec({ nics: [{ network: 'lan', mac: '01:00:5e:00:00:01' }] }), 'unicast'),
      invalid(spec({ nics: [{ network: 'lan', ipv4: '10.78.0.5' }] }), '10.78.0.5'),
      invalid(spec({ labels: { '': 'x' } }), 'labels'),
      invalid(spec({ unheardOf: 1 }), 'unheardOf'),
      refused('guest-create', spec({ name: 'one' }), 'AlreadyExists', 'one'),
      refused('guest-create', spec({ disks: [{ image: 'none' }] }), 'NotFound', 'none'),
      refused('guest-create', spec({ nics: [{ network: 'none' }] }), 'NotFound', 'none'),
      refused('guest-create', spec({ boot: { kind: 'kernel', kernel: 'none' } }), 'NotFound', 'none'),
      refused('guest-create', spec({ boot: { kind: 'kernel', kernel: 'idle' } }), 'InvalidArgument', 'idle'),
      refused('guest-create', spec({ machine: 'pc-q35-0.1' }), 'Unsupported', 'pc-q35-0.1'),
      refused('guest-create', spec({ machine: 'sun4m' }), 'Unsupported', 'sun4m'),
      refused('guest-create', spec({ cpu: { model: 'z80' } }), 'Unsupported', 'z80'),
      refused('guest-create', spec({ qemu: { binary: 'none' } }), 'Unsupported', 'none'),
      refused('guest-create', spec({ qemu: { binary: '__proto__' } }), 'Unsupported', '__proto__'),
    ]);
    expect(await daemon.guest('one')).toMatchObject({ state: 'stopped', generation: 1 });
    await stopAndCompare(home, daemon);
  });

  it('refuses files that are no image, and keeps nothing of them', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    const directory = await testDirectory('files');
    const at = (name: string): string => join(directory, name);
    await mkdir(at('directory'));
    await writeFile(at('empty'), '');
    await writeFile(at('text'), 'not a disk at all\n'.repeat(100));
    await writeFile(at('disk.raw'), bootSectorDisk('idle'));
    await symlink(at('nowhere'), at('dangling'));
    await home.run([
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      '/etc/shadow',
      '-F',
      'raw',
      at('spy.qcow2'),
    ]);
    await home.run(['mkfifo', at('fifo')]);
    const digest = '0'.repeat(64);
    const cases: readonly (readonly [object, ErrorClass, string])[] = [
      [{ path: at('nowhere') }, 'NotFound', 'nowhere'],
      [{ path: at('dangling') }, 'NotFound', 'dangling'],
      [{ path: at('directory') }, 'InvalidArgument', 'directory'],
      [{ path: at('fifo') }, 'InvalidArgument', 'FIFO'],
      [{ path: '/dev/null' }, 'InvalidArgument', 'device'],
      [{ path: join(home.runDirectory, 'roost.sock') }, 'InvalidArgument', 'socket'],
      [{ path: at('empty') }, 'InvalidArgument', 'empty'],
      [{ path: at('text') }, 'InvalidArgument', 'qcow2'],
      [{ path: at('disk.raw') }, 'InvalidArgument', 'qcow2'],
      [{ path: at('spy.qcow2') }, 'InvalidArgument', 'backing'],
      [{ path: at('disk.raw'), format: 'raw', sha256: digest }, 'InvalidArgument', 'digest'],
    ];
    for (const [args, errorClass, says] of cases) {
      const ended = await daemon.change('image-import', { name: 'bad', path: '', ...args });
      expect({ args, ...ended }).toMatchObject({ args, state: 'failed', error: { class: errorClass } });
      expect(ended.error?.desc).toContain(says);
      expect((await daemon.client.call('query-images', {})).images).toEqual([]);
    }
    await expectRefusals(home, daemon, [
      refused('image-import', { name: 'bad', path: 'disk.raw' }, 'InvalidArgument', 'absolute'),
      refused('image-import', { name: 'Bad', path: at('disk.raw') }, 'InvalidArgument', 'name'),
      refused(
        'image-import',
        { name: 'bad', path: at('disk.raw'), format: 'vdi' },
        'InvalidArgument',
        'format',
      ),
      refused(
        'image-import',
        { name: 'bad', path: at('disk.raw'), sha256: 'X' },
        'InvalidArgument',
        'sha256',
      ),
    ]);
    await stopAndCompare(home, daemon);
  });

  it('fails a start that the host or QEMU cannot give, with their words, and leaves nothing of it', async () => {
    const home = await testDaemonHome();
    const daemon = await home.start();
    await importBootSector(daemon, 'idle');
    await daemon.succeed('network-create', { name: 'lan' });
    const nics = [{ network: 'lan' }];
    const memoryBytes = 1024 ** 4;
    await daemon.succeed('guest-create', tinyGuest('huge', 'idle', { memoryBytes, nics }));
    const extraArgs = [{ argument: '-no-such-option', reason: 'a test' }];
    await daemon.succeed(
      'guest-create',
      tinyGuest('odd', 'idle', { qemu: { accel: 'tcg', extraArgs }, nics }),
    );
    expect((await daemon.guest('odd')).tainted).toEqual(['a test']);
    const totalBytes = (await daemon.client.call('query-host', {})).memory.totalBytes;
    await expectRefusals(home, daemon, [
      refused('guest-start', { guest: 'huge' }, 'ResourceExhausted', /needs \d+ MiB .* can give \d+ MiB/),
    ]);
    await expect(daemon.change('guest-start', { guest: 'huge' })).rejects.toMatchObject({
      wire: { data: { totalBytes, neededBytes: expect.any(Number), freeBytes: expect.any(Number) } },
    });
    const links = await linkNames(home);
    const odd = await daemon.change('guest-start', { guest: 'odd' });
    expect(odd).toMatchObject({
      state: 'failed',
      error: {
        class: 'HostError',
        desc: expect.stringContaining('no-such-option'),
        data: { guest: 'odd', exitCode: 1, said: expect.stringContaining('invalid option') },
      },
    });
    expect(await linkNames(home)).toEqual(links);
    expect(await daemon.guest('huge')).toMatchObject({ state: 'stopped', target: 'stopped' });
    expect(await daemon.guest('odd')).toMatchObject({ state: 'failed', lastExit: { cause: 'crashed' } });
    expect((await daemon.client.call('query-guest-log', { guest: 'odd', stream: 'process' })).text).toContain(
      'no-such-option',
    );
    // What fails can be mended and then runs; disks of absurd size cost nothing, or are refused as such.
    await daemon.succeed('guest-update', { guest: 'odd', qemu: { extraArgs: [] } });
    await daemon.succeed('guest-start', { guest: 'odd' });
    expect((await daemon.guest('odd')).state).toBe('running');
    await daemon.succeed('guest-stop', { guest: 'odd', force: true });

    const [image] = (await daemon.client.call('query-images', {})).images;
    const imageDirectory = join(home.stateDirectory, 'images', image?.id ?? 'none');
    await rename(imageDirectory, `${imageDirectory}-away`);
    expect(await daemon.change('guest-start', { guest: 'odd' })).toMatchObject({
      state: 'failed',
      error: { class: 'FailedPrecondition', desc: expect.stringContaining(imageDirectory) },
    });
    await rename(`${imageDirectory}-away`, imageDirectory);
    await daemon.succeed('guest-start', { guest: 'odd' });
    await daemon.succeed('guest-stop', { guest: 'odd', force: true });

    const disks = [{ image: 'idle' }, { sizeBytes: 2 ** 53 - 512 }];
    expect(await daemon.change('guest-create', tinyGuest('wide', 'idle', { disks }))).toMatchObject({
      state: 'failed',
      error: { class: 'HostError' },
    });
    expect((await daemon.client.call('query-guests', {})).total).toBe(2);
    await stopAndCompare(home, daemon);
  });
});

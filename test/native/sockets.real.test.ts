import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { adoptListener, groupId, listenUnix, peerCredentials, sdNotify } from '../../native/index.ts';

let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'roost-sockets-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A path of exactly this many bytes in a folder that exists. */
function pathOfLength(length: number): string {
  const parent = join(folder, 'd'.repeat(length - folder.length - '/'.length - '/s'.length));
  mkdirSync(parent);
  return join(parent, 's');
}

function modeOf(path: string): number {
  return lstatSync(path).mode & 0o7777;
}

async function serve(fd: number): Promise<Server> {
  const server = createServer();
  server.listen({ fd });
  await once(server, 'listening');
  return server;
}

/** Connects to a path of any length, by way of its folder's descriptor. */
async function connectTo(path: string): Promise<Socket> {
  const parent = openSync(dirname(path), 'r');
  const socket = connect(`/proc/self/fd/${parent}/${basename(path)}`);
  await once(socket, 'connect').finally(() => closeSync(parent));
  return socket;
}

/** Node tells the descriptor of a socket only by way of its handle. */
function descriptorOf(socket: Socket): number {
  return (socket as Socket & { readonly _handle: { readonly fd: number } })._handle.fd;
}

describe('listenUnix', () => {
  it.each([90, 107, 108, 150, 255])('serves a path of %i bytes', async (length) => {
    const path = pathOfLength(length);
    expect(Buffer.byteLength(path)).toBe(length);
    const server = await serve(listenUnix(path, { mode: 0o600, backlog: 8 }));
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const client = await connectTo(path);
    const [peer] = await accepted;

    client.end('hello');
    const [data] = (await once(peer, 'data')) as [Buffer];
    expect(data.toString()).toBe('hello');

    peer.destroy();
    server.close();
    await once(server, 'close');
  });

  it.each(['0600', '0660', '0666'])('gives the file mode %s whatever the umask', async (mode) => {
    const path = join(folder, 'socket');
    const script =
      "import { listenUnix } from './native/index.ts'; process.umask(0o077); " +
      `listenUnix(${JSON.stringify(path)}, { mode: 0o${mode}, backlog: 1 });`;
    const node = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      cwd: join(import.meta.dirname, '../..'),
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    onTestFinished(() => void node.kill('SIGKILL'));
    expect(await once(node, 'exit')).toEqual([0, null]);
    expect(modeOf(path)).toBe(Number.parseInt(mode, 8));
  });

  it('takes the place of a socket that an earlier run left', async () => {
    const path = join(folder, 'socket');
    closeSync(listenUnix(path, { mode: 0o600, backlog: 1 }));
    expect(existsSync(path)).toBe(true);
    const server = await serve(listenUnix(path, { mode: 0o600, backlog: 1 }));
    const client = await connectTo(path);
    client.destroy();
    server.close();
    await once(server, 'close');
  });

  it('leaves a file that is no socket', () => {
    const path = join(folder, 'file');
    writeFileSync(path, 'precious');
    expect(() => listenUnix(path, { mode: 0o600, backlog: 1 })).toThrow(
      expect.objectContaining({ code: 'EADDRINUSE', syscall: 'bind' }),
    );
    expect(readFileSync(path, 'utf8')).toBe('precious');
  });

  it.each([
    ['a folder that is absent', 'absent/socket', 'ENOENT'],
    ['no name at the end', 'name/', 'EINVAL'],
    ['a name that no address can hold', 's'.repeat(120), 'ENAMETOOLONG'],
  ])('refuses %s', (_what, relative, code) => {
    expect(() => listenUnix(`${folder}/${relative}`, { mode: 0o600, backlog: 1 })).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

describe('peerCredentials', () => {
  it('tells who connected', async () => {
    const path = join(folder, 'socket');
    const server = await serve(listenUnix(path, { mode: 0o600, backlog: 1 }));
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const script = 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)';
    const client = spawn('python3', ['-c', script, path], { stdio: 'ignore' });
    onTestFinished(() => void client.kill('SIGKILL'));
    const [peer] = await accepted;

    expect(peerCredentials(descriptorOf(peer))).toEqual({
      pid: client.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
    });

    const exit = once(client, 'exit');
    peer.end();
    await exit;
    server.close();
    await once(server, 'close');
  });

  it('refuses what is no socket', () => {
    const fd = openSync('/dev/null', 'r');
    expect(() => peerCredentials(fd)).toThrow(
      expect.objectContaining({
        code: 'ENOTSOCK',
        syscall: 'getsockopt',
        message: expect.stringContaining(`${fd}`),
      }),
    );
    closeSync(fd);
    expect(() => peerCredentials(Number.NaN)).toThrow(TypeError);
  });
});

describe('sdNotify', () => {
  const before = process.env.NOTIFY_SOCKET;

  afterEach(() => {
    if (before === undefined) delete process.env.NOTIFY_SOCKET;
    else process.env.NOTIFY_SOCKET = before;
  });

  /** A manager that prints `ready`, then the one message it received. */
  const receiver = [
    'import socket, sys',
    's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
    'n = sys.argv[1]',
    's.bind("\\0" + n[1:] if n[0] == "@" else n)',
    'print("ready", flush=True)',
    'print(s.recv(4096).decode().replace("\\n", "|"), flush=True)',
  ].join('\n');

  it.each([
    ['a path', (): string => join(folder, 'notify')],
    ['an abstract name', (): string => `@roost-test-${randomBytes(8).toString('hex')}`],
  ])('sends to %s', async (_kind, address) => {
    const target = address();
    const manager = spawn('python3', ['-c', receiver, target], { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void manager.kill('SIGKILL'));
    const lines = createInterface({ input: manager.stdout })[Symbol.asyncIterator]();
    expect(await lines.next()).toEqual({ done: false, value: 'ready' });

    process.env.NOTIFY_SOCKET = target;
    expect(sdNotify('READY=1\nSTATUS=2 guests')).toBe(true);
    expect(await lines.next()).toEqual({ done: false, value: 'READY=1|STATUS=2 guests' });
  });

  it('does nothing when there is no manager', () => {
    delete process.env.NOTIFY_SOCKET;
    expect(sdNotify('READY=1')).toBe(false);
    process.env.NOTIFY_SOCKET = '';
    expect(sdNotify('READY=1')).toBe(false);
  });

  it.each([
    ['/nowhere/notify', 'ENOENT'],
    ['vsock:2:1234', 'EAFNOSUPPORT'],
    [`/${'n'.repeat(200)}`, 'ENAMETOOLONG'],
  ])('fails aloud for %s', (target, code) => {
    process.env.NOTIFY_SOCKET = target;
    expect(() => sdNotify('READY=1')).toThrow(expect.objectContaining({ code }));
  });
});

describe('groupId', () => {
  it('knows root and not a group that is absent', () => {
    expect(groupId('root')).toBe(0);
    expect(groupId('no-such-group-of-roost')).toBeUndefined();
  });
});

describe('adoptListener', () => {
  it('tells the path, and keeps the socket from children', () => {
    const path = join(folder, 's');
    const fd = listenUnix(path, { mode: 0o600, backlog: 1 });
    try {
      expect(adoptListener(fd)).toBe(path);
      const flags = /^flags:\s+0?(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0';
      // O_CLOEXEC, as proc(5) shows it.
      expect(Number.parseInt(flags, 8) & 0o2000000).not.toBe(0);
    } finally {
      closeSync(fd);
    }
  });

  it('refuses what is no listening socket', async () => {
    const fd = openSync('/dev/null', 'r');
    expect(() => adoptListener(fd)).toThrow(expect.objectContaining({ code: 'ENOTSOCK' }));
    closeSync(fd);
    expect(() => adoptListener(fd)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    const path = join(folder, 's');
    const server = await serve(listenUnix(path, { mode: 0o600, backlog: 1 }));
    const socket = await connectTo(path);
    expect(() => adoptListener(descriptorOf(socket))).toThrow(
      expect.objectContaining({ code: 'EAFNOSUPPORT' }),
    );
    socket.destroy();
    server.close();
  });
});

/**
 * QMP clients that were written for QEMU talk to roostd as they are: the greeting, errors, events and the length of
 * lines are what they expect. Needs their packages from a Debian mirror; without them it fails.
 */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ErrorClass } from '../../../protocol/errors.ts';
import type { GuestSpecInput } from '../../../protocol/guest.ts';
import { type DaemonHome, type RealDaemon, testDaemonHome } from '../../harness/real-daemon.ts';
import { testDirectory } from '../../harness/test-directory.ts';
import { fetchGoClient, fetchPythonClient, fetchTimeoutMs } from './fetch-clients.ts';
import { type ForeignClient, startForeignClient } from './foreign-client.ts';

type CommandLine = readonly [string, ...string[]];

interface Kind {
  readonly title: string;
  readonly fetch: (signal: AbortSignal) => Promise<CommandLine>;
  /** The longest line it reads, in bytes; a reply that is longer breaks its connection. */
  readonly longestLineBytes: number;
  /** go-qemu gives an error's `desc` alone. */
  readonly givesErrorClass: boolean;
}

interface GuestPage {
  readonly guests: readonly { readonly name: string; readonly description: string }[];
  readonly total: number;
  readonly next?: string;
}

const KIBIBYTE = 1024;
/** Debian's own, not whatever a version manager puts before it. */
const python = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';

const kinds: readonly Kind[] = [
  {
    title: "QEMU's Python client",
    fetch: async (signal) => [
      '/usr/bin/env',
      `PYTHONPATH=${await fetchPythonClient(signal)}`,
      'PYTHONDONTWRITEBYTECODE=1',
      python,
      join(import.meta.dirname, 'python-client.py'),
    ],
    longestLineBytes: 256 * KIBIBYTE,
    givesErrorClass: true,
  },
  {
    title: 'go-qemu',
    fetch: async (signal) => [await fetchGoClient(signal)],
    longestLineBytes: 64 * KIBIBYTE,
    givesErrorClass: false,
  },
];

const commandLines = new Map<Kind, Promise<CommandLine>>();

// A client that can't be had is told by each test that needs it: a failed hook would only skip them.
beforeAll(async () => {
  const signal = AbortSignal.timeout(fetchTimeoutMs);
  for (const kind of kinds) commandLines.set(kind, kind.fetch(signal));
  await Promise.allSettled(commandLines.values());
}, fetchTimeoutMs + 10_000);

const startDaemon = async (): Promise<{ home: DaemonHome; daemon: RealDaemon }> => {
  const home = await testDaemonHome();
  return { home, daemon: await home.start() };
};

/** What guests that are never started boot from. */
const importKernel = async (daemon: RealDaemon): Promise<GuestSpecInput['boot']> => {
  const path = join(await testDirectory(), 'kernel');
  await writeFile(path, 'not started');
  await daemon.succeed('image-import', { name: 'kernel', kind: 'kernel', path, format: 'raw' });
  return { kind: 'kernel', kernel: 'kernel' };
};

const connect = async (kind: Kind, home: DaemonHome): Promise<ForeignClient> => {
  const commandLine = await commandLines.get(kind);
  if (!commandLine) throw new Error(`${kind.title} was not fetched`);
  return startForeignClient(commandLine, join(home.runDirectory, 'roost.sock'));
};

const lineBytes = (result: unknown): number => Buffer.byteLength(JSON.stringify({ return: result }));

describe.each(kinds)('$title', (kind) => {
  it('connects, asks, and disconnects', async () => {
    const { home, daemon } = await startDaemon();
    const client = await connect(kind, home);
    expect(client.version).toEqual(await daemon.client.call('query-version', {}));
    expect(await client.query('query-version')).toEqual(client.version);
    const commands = await client.query<{ name: string }[]>('query-commands');
    expect(commands).toEqual(await daemon.client.call('query-commands', {}));
    expect(await client.query('query-guests')).toEqual({ guests: [], total: 0 });
    expect(await client.disconnect()).toEqual({ disconnected: true });
    await daemon.stop();
    expect(daemon.log()).not.toContain('"level":50');
  });

  it('is told what is wrong, and goes on', async () => {
    const { home, daemon } = await startDaemon();
    const client = await connect(kind, home);
    const wrong: readonly [errorClass: ErrorClass, desc: string, name: string, args?: object][] = [
      ['CommandNotFound', 'The command query-block has not been found', 'query-block'],
      ['CommandNotFound', 'Capabilities negotiation is already complete', 'qmp_capabilities'],
      ['InvalidArgument', 'query-guests: limit: ', 'query-guests', { limit: 'many' }],
      ['InvalidArgument', 'colour', 'query-guests', { colour: 'red' }],
      ['NotFound', 'nobody', 'query-guest', { guest: 'nobody' }],
    ];
    for (const [errorClass, desc, name, args] of wrong) {
      expect(await client.execute(name, args)).toEqual({
        error: {
          ...(kind.givesErrorClass ? { class: errorClass } : {}),
          desc: expect.stringContaining(desc),
        },
      });
    }
    expect(await client.query('query-guests')).toEqual({ guests: [], total: 0 });
    expect(await client.disconnect()).toEqual({ disconnected: true });
    await daemon.stop();
  });

  it('changes guests, and gets their events without asking for any', async () => {
    const { home, daemon } = await startDaemon();
    const client = await connect(kind, home);
    const startedAt = (await daemon.client.call('query-daemon', {})).startedAt;
    const change = async (name: string, args: object): Promise<void> => {
      const { operation } = await client.query<{ operation: string }>(name, args);
      const ended = await client.query<{ state: string }>('operation-wait', { operation });
      expect(ended).toMatchObject({ state: 'succeeded' });
    };
    const boot = await importKernel(daemon);
    await change('guest-create', { name: 'plain', description: 'Grüße 🐧', boot });
    const created = await client.nextEvent('GUEST_CREATED');
    expect(created.data).toMatchObject({ name: 'plain', actor: expect.stringMatching(/^unix:uid=/) });
    const { seconds, microseconds } = created.timestamp;
    expect(microseconds).toBeLessThan(1e6);
    expect(seconds * 1000 + microseconds / 1000).toBeGreaterThan(startedAt - 1000);
    expect(await client.query('query-guest', { guest: 'plain' })).toMatchObject({ description: 'Grüße 🐧' });

    await change('guest-delete', { guest: 'plain' });
    const deleted = await client.nextEvent('GUEST_DELETED');
    expect(deleted.data).toMatchObject({ guest: created.data['guest'], name: 'plain' });
    expect(await client.disconnect()).toEqual({ disconnected: true });
    await daemon.stop();
  });
});

it('long lists come in pages that every client can read, unless it asks for more', async () => {
  const { home, daemon } = await startDaemon();
  const names = Array.from({ length: 200 }, (_, index) => `guest-${String(index).padStart(3, '0')}`);
  const boot = await importKernel(daemon);
  await Promise.all(
    names.map((name) => daemon.succeed('guest-create', { name, description: name.repeat(200), boot })),
  );

  for (const kind of kinds) {
    const client = await connect(kind, home);
    const pages: GuestPage[] = [];
    let after: string | undefined;
    do {
      const page: GuestPage = await client.query('query-guests', after === undefined ? {} : { after });
      pages.push(page);
      after = page.next;
    } while (after !== undefined);
    expect(pages.flatMap((page) => page.guests.map((guest) => guest.name))).toEqual(names);
    expect(new Set(pages.map((page) => page.total))).toEqual(new Set([names.length]));
    const bytes = pages.map(lineBytes);
    expect(Math.max(...bytes)).toBeLessThan(64 * KIBIBYTE);
    // The limit is what cut them: all but the last are nearly as long as they may be.
    expect(Math.min(...bytes.slice(0, -1))).toBeGreaterThan(56 * KIBIBYTE);

    // As much as this client can read is given when it is asked for; 64 KiB is no limit of the daemon.
    const guestBytes = lineBytes(await client.query<GuestPage>('query-guests', { limit: 1 }));
    const limit = Math.floor((kind.longestLineBytes * 0.95) / guestBytes);
    const page: GuestPage = await client.query('query-guests', { limit });
    expect(page.guests).toHaveLength(limit);
    expect(lineBytes(page)).toBeGreaterThan(kind.longestLineBytes * 0.85);

    // More than it can read ends its connection, and nobody else's.
    const { failure, error } = await client.execute('query-guests', { limit: names.length });
    expect(failure ?? error?.desc).toMatch(/Disconnected|token too long/);
    const again = await connect(kind, home);
    expect(await again.query('query-guests', { limit: names.length, fields: ['name'] })).toEqual({
      guests: names.map((name) => ({ name })),
      total: names.length,
    });
    expect(await again.disconnect()).toEqual({ disconnected: true });
  }
  await daemon.stop();
  // 200 waits on one connection are nothing that Node would complain about.
  expect(daemon.log()).not.toContain('Warning');
});

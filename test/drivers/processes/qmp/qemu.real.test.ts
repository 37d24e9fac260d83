import { mkdtemp, open, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readBlackBox } from '../../../../drivers/processes/qmp/black-box.ts';
import { QmpClient } from '../../../../drivers/processes/qmp/qmp-client.ts';
import type { QmpEvent } from '../../../../drivers/processes/qmp/qmp-types.ts';
import { guestStateOf } from '../../../../drivers/processes/qmp/run-state.ts';
import { classifySilence } from '../../../../drivers/processes/qmp/silence.ts';
import { deferred } from '../../../../lib/abort.ts';
import { hasQemu, type RealQemu, startQemu } from '../../../fake-qemu/real-qemu.ts';

const signal = new AbortController().signal;

/** Runs `look` until it gives something; every look is a system call that changes nothing. */
async function observe<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const seen = await look();
    if (seen !== undefined) return seen;
    await new Promise(setImmediate);
  }
}

/** A descriptor that is worth handing over. */
async function openDescriptor(): Promise<{ readonly fd: number; readonly close: () => Promise<void> }> {
  const file = await open('/dev/null');
  return { fd: file.fd, close: () => file.close() };
}

describe.skipIf(!hasQemu)('a real QEMU (skipped where qemu-system-x86_64 is not installed)', () => {
  let qemu: RealQemu;
  let client: QmpClient;
  let onEvent: (event: QmpEvent) => void;

  beforeEach(async () => {
    onEvent = () => undefined;
    qemu = await startQemu();
    client = await QmpClient.connect(qemu.socketPath, { signal, onEvent: (event) => onEvent(event) });
  });
  afterEach(async () => {
    await client.close();
    await qemu[Symbol.asyncDispose]();
  });

  /** The next event of that name. */
  const next = (name: string): Promise<QmpEvent> => {
    const seen = deferred<QmpEvent>();
    onEvent = (event) => {
      if (event.event === name) seen.resolve(event);
    };
    return seen.promise;
  };

  test('answers every query that the driver asks, in the shape that it expects', async () => {
    const { major } = client.greeting.version.qemu;
    expect((await client.execute('query-version', {}, { signal })).qemu.major).toBe(major);
    expect(await client.execute('query-kvm', {}, { signal })).toMatchObject({ enabled: false });
    expect(await client.execute('query-name', {}, { signal })).toEqual({});
    expect((await client.execute('query-uuid', {}, { signal })).UUID).toMatch(/^[0-9a-f-]{36}$/);
    const machines = await client.execute('query-machines', {}, { signal });
    expect(machines.filter((machine) => machine['is-default'] === true)).toHaveLength(1);
    expect(await client.execute('query-commands', {}, { signal })).toContainEqual({ name: 'quit' });
    const models = await client.execute('query-cpu-definitions', {}, { signal });
    expect(models.map((model) => model.name)).toContain('max');
    expect((await client.execute('query-qmp-schema', {}, { signal })).length).toBeGreaterThan(100);
    const chardevs = await client.execute('query-chardev', {}, { signal });
    expect(chardevs.map((chardev) => chardev.label)).toContain('ev');
    expect(client.violations).toBe(0);
  });

  test('plugs and unplugs a disk and a NIC', async () => {
    const node = { driver: 'null-co', 'node-name': 'disk0', size: 1_048_576, 'read-zeroes': true };
    await client.execute('blockdev-add', node, { signal });
    await client.execute('netdev_add', { type: 'user', id: 'net0' }, { signal });
    await client.execute('device_add', { driver: 'virtio-blk-pci', id: 'd0', drive: 'disk0' }, { signal });
    await client.execute('device_add', { driver: 'virtio-net-pci', id: 'n0', netdev: 'net0' }, { signal });
    const [block] = await client.execute('query-block', {}, { signal });
    expect(block?.inserted).toMatchObject({ 'node-name': 'disk0', image: { 'virtual-size': 1_048_576 } });
    const busy = client.execute('blockdev-del', { 'node-name': 'disk0' }, { signal });
    await expect(busy).rejects.toMatchObject({ name: 'QmpCommandError', class: 'GenericError' });
  });

  test('is handed a descriptor, in its place among the other commands', async () => {
    const { fd, close } = await openDescriptor();
    const before = client.execute('query-status', {}, { signal });
    await client.sendDescriptor('mine', fd, { signal });
    await before;
    await close();
    await client.execute('closefd', { fdname: 'mine' }, { signal });
    const again = client.execute('closefd', { fdname: 'mine' }, { signal });
    await expect(again).rejects.toMatchObject({ desc: expect.stringContaining('not found') });
    await expect(client.sendDescriptor('none', fd, { signal })).rejects.toMatchObject({ code: 'EBADF' });
    expect(client.violations).toBe(0);
  });

  test('its run states mean what the table says', async () => {
    const state = async () => guestStateOf((await client.execute('query-status', {}, { signal })).status);
    expect(await state()).toEqual({ state: 'starting' });
    await client.execute('cont', {}, { signal });
    expect(await state()).toEqual({ state: 'running' });
    await client.execute('stop', {}, { signal });
    expect(await state()).toEqual({ state: 'paused', reason: 'user' });
  });

  test('greets a second client only when the first is gone', async () => {
    const controller = new AbortController();
    const second = QmpClient.connect(qemu.socketPath, {
      signal: controller.signal,
      onEvent: () => undefined,
    });
    // The first still has the monitor to itself.
    await client.execute('query-status', {}, { signal });
    await client.close();
    client = await second;
    expect(await client.execute('query-status', {}, { signal })).toMatchObject({ status: 'prelaunch' });
  });

  test('is reached by a path that is too long for a socket address', async () => {
    const parent = await mkdtemp(join(tmpdir(), `long-${'x'.repeat(100)}-`));
    const path = join(parent, 'qmp.sock');
    await client.close();
    await rename(qemu.socketPath, path);
    client = await QmpClient.connect(path, { signal, onEvent: () => undefined });
    expect(await client.execute('query-status', {}, { signal })).toMatchObject({ running: false });
    await rm(parent, { recursive: true });
  });

  test('a quit is answered, ends the line and stands in the black box, seen or not', async () => {
    await client.execute('cont', {}, { signal });
    const first = await readBlackBox(qemu.logPath, 0);
    expect(first.events.map((event) => event.event)).toEqual(['RESUME']);
    expect(await client.execute('quit', {}, { signal })).toEqual({});
    expect(await client.ended).toEqual({ reason: 'eof' });
    await qemu.exited;
    const last = await readBlackBox(qemu.logPath, first.nextOffset);
    const shutdown = last.events.find((event) => event.event === 'SHUTDOWN');
    expect(shutdown?.data).toMatchObject({ guest: false, reason: 'host-qmp-quit' });
    expect(last.nextOffset).toBe(last.size);
  });

  test('events of the time when nobody was connected are in the black box', async () => {
    await client.execute('cont', {}, { signal });
    await client.close();
    const ended = qemu.exited;
    qemu.signal('SIGTERM');
    await ended;
    const { events } = await readBlackBox(qemu.logPath, 0);
    expect(events.map((event) => event.event)).toContain('SHUTDOWN');
    expect(events.find((event) => event.event === 'SHUTDOWN')?.data).toMatchObject({ reason: 'host-signal' });
  });

  test('an event reaches the session and the black box alike', async () => {
    const resumed = next('RESUME');
    await client.execute('cont', {}, { signal });
    const seen = await resumed;
    const { events } = await readBlackBox(qemu.logPath, 0);
    expect(events).toEqual([seen]);
  });

  test('killed: the line ends, the black box ends without a SHUTDOWN, the silence is death', async () => {
    qemu.signal('SIGKILL');
    expect(await client.ended).toEqual({ reason: 'eof' });
    await qemu.exited;
    expect(await classifySilence(qemu.pid)).toBe('dead');
    const { events } = await readBlackBox(qemu.logPath, 0);
    expect(events.map((event) => event.event)).not.toContain('SHUTDOWN');
  });

  test('killed with a command unread: a reset is a hang-up too', async () => {
    qemu.signal('SIGSTOP');
    await observe(async () => ((await classifySilence(qemu.pid)) === 'stopped' ? true : undefined));
    const call = client.execute('query-status', {}, { signal }).catch((error: unknown) => error);
    qemu.signal('SIGKILL');
    expect(await call).toMatchObject({ name: 'QmpDisconnectedError', end: { reason: 'eof' } });
  });

  test('stopped by a signal: silent but not dead, and back when continued', async () => {
    expect(await classifySilence(qemu.pid)).toMatch(/^(busy|storage)$/);
    qemu.signal('SIGSTOP');
    await observe(async () => ((await classifySilence(qemu.pid)) === 'stopped' ? true : undefined));
    const heardBefore = client.lastHeardAt;
    const answer = client.execute('query-status', {}, { signal });
    expect(client.pendingCalls()).toHaveLength(1);
    expect(client.lastHeardAt).toBe(heardBefore);
    qemu.signal('SIGCONT');
    expect(await answer).toMatchObject({ status: 'prelaunch' });
    expect(client.lastHeardAt).toBeGreaterThan(heardBefore);
  });
});

/**
 * A bare QEMU for tests that look at guests and not at Roost: its serial console on standard input and output, QMP
 * on a socket. Waiting is for text, events or the end, never for time. `dispose` kills it and leaves nothing behind.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

export type TestMachine = 'pc' | 'q35' | 'microvm';
export type TestAccelerator = 'kvm' | 'tcg';

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** How QEMU ended. */
export interface QemuEnd {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly events: readonly QmpEvent[];
}

export interface RawQemu {
  /**
   * Resolves once the console has shown `text` after what earlier calls took, with all that came up to its end;
   * fails with the console's tail if QEMU ends before.
   */
  readonly waitForText: (text: string) => Promise<string>;
  readonly waitForEvent: (name: string) => Promise<QmpEvent>;
  readonly type: (text: string) => void;
  /** Sends a QMP command; the answer is not waited for, its effect is what a test looks at. */
  readonly execute: (command: string, commandArguments?: Readonly<Record<string, unknown>>) => void;
  readonly ended: Promise<QemuEnd>;
  readonly dispose: () => Promise<void>;
}

/** Starts QEMU with nothing but the given devices. */
export async function startRawQemu(
  machine: TestMachine,
  accelerator: TestAccelerator,
  deviceArguments: readonly string[],
): Promise<RawQemu> {
  const folder = await mkdtemp(join(tmpdir(), 'roost-raw-qemu-'));
  const listener = createServer();
  const socketPath = join(folder, 'qmp');
  await new Promise<void>((resolve) => listener.listen(socketPath, resolve));
  const child = spawn(
    'qemu-system-x86_64',
    ['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio']
      .concat(['-machine', machine, '-accel', accelerator, '-qmp', `unix:${socketPath}`])
      .concat(deviceArguments),
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  const end = once(child, 'close') as Promise<[number | null, string | null]>;
  // QEMU connects to us, so there is no path to wait for; if it fails to start, its end comes instead.
  const connected = once(listener, 'connection') as Promise<[Socket]>;
  const first = await Promise.race([connected, end.then(() => undefined)]).catch((error: unknown) =>
    String(error),
  );
  listener.close();
  if (!Array.isArray(first)) {
    await rm(folder, { recursive: true, force: true });
    throw new Error(`QEMU did not start: ${first ?? String(child.stderr.read() ?? '')}`);
  }
  return attach(child, first[0], end, folder);
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

function attach(
  child: Child,
  monitor: Socket,
  end: Promise<[number | null, string | null]>,
  folder: string,
): RawQemu {
  const notices = new Notices();
  const events: QmpEvent[] = [];
  let console = '';
  let errors = '';
  child.stdin.on('error', () => {});
  child.stdout.on('data', (chunk: Buffer) => {
    console += chunk.toString('latin1');
    notices.notify();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  // A reset connection is how some ends look from here; the end itself is reported by the process.
  monitor.on('error', () => {});
  const monitorClosed = new Promise<void>((resolve) => monitor.once('close', () => resolve()));
  monitor.write('{"execute":"qmp_capabilities"}\n');
  // QEMU ends each value with a line end, which QMP does not promise but this version does.
  let pending = '';
  monitor.on('data', (chunk: Buffer) => {
    const lines = (pending + chunk.toString()).split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) {
      const value = JSON.parse(line) as Partial<QmpEvent>;
      if (value.event !== undefined) events.push({ ...value, event: value.event });
    }
    notices.notify();
  });
  const ended = Promise.all([end, monitorClosed]).then(([[exitCode, signal]]): QemuEnd => {
    notices.finish(() => `QEMU ended (${exitCode ?? signal}): ${errors}\nconsole: ${console.slice(-2000)}`);
    return { exitCode, signal, events };
  });

  let eventsTaken = 0;
  return {
    waitForText: (text) =>
      notices.until(() => {
        const at = console.indexOf(text);
        if (at === -1) return undefined;
        const shown = console.slice(0, at + text.length);
        console = console.slice(shown.length);
        return shown;
      }),
    waitForEvent: (name) =>
      notices.until(() => {
        const at = events.findIndex((event, index) => index >= eventsTaken && event.event === name);
        if (at === -1) return undefined;
        eventsTaken = at + 1;
        return events[at];
      }),
    type: (text) => void child.stdin.write(text),
    execute: (command, commandArguments) =>
      void monitor.write(`${JSON.stringify({ execute: command, arguments: commandArguments })}\n`),
    ended,
    dispose: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Wakes those who wait for something to appear, each time something may have. */
class Notices {
  readonly #waiting = new Set<() => void>();
  #failure: (() => string) | undefined;

  notify(): void {
    for (const check of this.#waiting) check();
  }

  finish(failure: () => string): void {
    this.#failure = failure;
    this.notify();
  }

  async until<T>(look: () => T | undefined): Promise<T> {
    return await new Promise((resolve, reject) => {
      const check = () => {
        const found = look();
        if (found === undefined && this.#failure === undefined) return;
        this.#waiting.delete(check);
        if (found === undefined) reject(new Error(this.#failure?.()));
        else resolve(found);
      };
      this.#waiting.add(check);
      check();
    });
  }
}

/** Why KVM can't be used here, or undefined if it can: the device must open for this process. */
export async function kvmUnavailable(): Promise<string | undefined> {
  try {
    const handle = await open('/dev/kvm', 'r+');
    await handle.close();
    return undefined;
  } catch (error) {
    return `/dev/kvm can't be opened: ${error instanceof Error ? error.message : String(error)}`;
  }
}

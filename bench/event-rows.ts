/** From QEMU's own time stamp of an event until a client has read what Roost makes of it: one client, and up to a hundred. */
import type { Client } from '../cli/client.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { type Figure, figureOf, growthOf, type Point } from './measure.ts';
import { importIdleKernel, kernelName, MEMORY_BYTES } from './start-rows.ts';

const PAUSES = 60;
const WARM_UPS = 10;
const SUBSCRIBERS = [1, 10, 100] as const;
const SHORT_PAUSES = 10;

/** Milliseconds since the epoch, with the fractions that Date.now() has not. */
const now = (): number => performance.timeOrigin + performance.now();

/** Resolves with the delay of the next change of the guest to that state. */
const nextDelay = async (client: Client, state: string): Promise<number> => {
  for await (const { data, timestamp } of client.events()) {
    const heard = now();
    if (data['to'] === state) return heard - (timestamp.seconds * 1000 + timestamp.microseconds / 1000);
  }
  throw new Error('the events ended');
};

/** Of each pause and resume the delay until the last client has it. */
const delaysOf = async (
  instance: Instance,
  clients: readonly Client[],
  pauses: number,
): Promise<number[]> => {
  const delays: number[] = [];
  for (let round = 0; round < WARM_UPS + pauses; round += 1) {
    const [verb, state] =
      round % 2 === 0 ? (['guest-pause', 'paused'] as const) : (['guest-resume', 'running'] as const);
    const heard = clients.map((client) => nextDelay(client, state));
    await instance.succeed(verb, { guest: 'small' });
    delays.push(Math.max(...(await Promise.all(heard))));
  }
  return delays.slice(WARM_UPS);
};

const subscribe = async (instance: Instance): Promise<Client> => {
  const client = await instance.connect();
  await client.call('events-subscribe', { events: ['GUEST_STATE_CHANGED'] });
  return client;
};

export const eventRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    await importIdleKernel(instance);
    const boot = { kind: 'kernel', kernel: kernelName } as const;
    await instance.succeed('guest-create', { name: 'small', memoryBytes: MEMORY_BYTES, boot, start: true });
    const before = (await instance.client.call('query-daemon', {})).memoryBytes;
    const clients: Client[] = [];
    const points: Point[] = [];
    for (const size of SUBSCRIBERS) {
      while (clients.length < size) clients.push(await subscribe(instance));
      const delays = await delaysOf(instance, clients, options.short ? SHORT_PAUSES : PAUSES);
      points.push({
        size,
        figure: figureOf(size === 1 ? 'event-delay' : `event-delay-${size}`, 'ms', delays),
      });
    }
    const after = (await instance.client.call('query-daemon', {})).memoryBytes;
    for (const client of clients) client.close();
    return [
      ...points.map(({ figure }) => figure),
      growthOf('event-delay-growth', points),
      figureOf('subscriber-memory', 'KiB', [(after - before) / 1024 / clients.length]),
    ];
  } finally {
    await instance.close();
  }
};

import { open, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Observation } from '../../../drivers/driver.ts';
import { EventLog, readEvents } from '../../../drivers/processes/event-log.ts';
import { testDirectory } from '../../harness/test-directory.ts';

const line = (number: number): string =>
  `${JSON.stringify({ timestamp: { seconds: number, microseconds: 0 }, event: 'RESET', data: { guest: true } })}\n`;

test('a log that outgrows its reader is passed over in part, and that is told', async () => {
  const path = join(await testDirectory(), 'events.log');
  const file = await open(path, 'w');
  await file.write(line(1).repeat(1000));
  // As large as days of a flood, and empty but for its end.
  const size = 40 * 1024 * 1024;
  await file.truncate(size);
  await file.write(`\n${line(2).repeat(10)}`, size);
  await file.close();
  const told: Observation[] = [];
  const log = new EventLog(path, 0, (observation) => told.push(observation));
  await log.read();
  log.close();
  const skipped = told.filter(
    (each) => each.kind === 'driver-event' && each.event === 'ROOST_EVENTS_SKIPPED',
  );
  expect(skipped).toHaveLength(1);
  expect(told.at(-1)).toMatchObject({ kind: 'driver-event', event: 'RESET', at: 2000 });
  expect(log.cursor).toBe((await stat(path)).size);
});

test('without a pace everything is read, as when a process is gone', async () => {
  const path = join(await testDirectory(), 'events.log');
  await writeFile(path, line(1).repeat(5000));
  let events = 0;
  await readEvents(path, 0, () => {
    events += 1;
  });
  expect(events).toBe(5000);
});

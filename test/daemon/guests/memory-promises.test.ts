import { expect, test } from 'vitest';
import { MemoryPromises } from '../../../daemon/guests/memory-promises.ts';
import type { GuestRegistry } from '../../../daemon/guests/registry.ts';
import { readHostMemory } from '../../../daemon/host-memory.ts';

const demand = (name: string, bytes: number): Parameters<MemoryPromises['promise']>[0] =>
  ({ name, spec: { memoryBytes: bytes }, driver: { overheadBytes: () => 0 } }) as never;

test('two starts at the same moment do not get the same memory', async () => {
  const registry = { committedBytes: () => 0 } as unknown as GuestRegistry;
  const { totalBytes } = await readHostMemory();
  const most = 1024 * 1024;
  const promises = new MemoryPromises(registry, totalBytes - most);
  const bytes = most * 0.75;
  const first = await promises.promise(demand('web1', bytes));
  await expect(promises.promise(demand('web2', bytes))).rejects.toMatchObject({
    class: 'ResourceExhausted',
    data: { committedBytes: bytes },
  });
  // Asked for twice is not needed twice.
  (await promises.promise(demand('web1', bytes)))[Symbol.dispose]();
  first[Symbol.dispose]();
  (await promises.promise(demand('web2', bytes)))[Symbol.dispose]();
});

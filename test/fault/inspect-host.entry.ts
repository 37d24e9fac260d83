/**
 * Prints what the ledger of a daemon holds and what is on the host, as JSON `{ledger, host}`, both lists of keys. A
 * program of the tests: it is run inside the network namespace of the daemon it looks at. With `--serve` it looks again
 * for each line that it reads. Only while no operation is under way: it takes and gives back the locks of guests.
 */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { readConfigFile } from '../../daemon/config.ts';
import { inspectHost } from '../../daemon/host-objects.ts';
import { openInventory } from '../../daemon/inventory/inventory.ts';
import { realParts } from '../../daemon/main.ts';
import { silentLog } from '../../lib/log.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';

const [stateDirectory = '', runDirectory = '', serve] = process.argv.slice(2);
const privileged = process.getuid?.() === 0;
const config = { ...readConfigFile('/nonexistent', false), stateDirectory, runDirectory };

const look = async (): Promise<{ ledger: string[]; host: string[] }> => {
  const inventory = openInventory(join(stateDirectory, 'roost.db'));
  try {
    const instance = inventory.meta.get('instance') as InstanceId;
    const parts = realParts({
      config,
      inventory,
      instance,
      privileged,
      imagesGid: privileged ? 1 : undefined,
      log: silentLog(),
    });
    const place = { instance, stateDirectory, runDirectory };
    const host = await inspectHost(parts, place, new AbortController().signal);
    return { ledger: [...inventory.ledger.keys()].sort(), host: host.map(hostObjectKey) };
  } finally {
    inventory.db.close();
  }
};

if (serve === '--serve')
  for await (const _line of createInterface(process.stdin)) {
    process.stdout.write(`${JSON.stringify(await look())}\n`);
  }
else process.stdout.write(JSON.stringify(await look()));
process.exit(0);

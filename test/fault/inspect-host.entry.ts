/**
 * Prints what the ledger of a stopped daemon holds and what is on the host, as JSON `{ledger, host}`, both lists of
 * keys. A program of the tests: it is run inside the network namespace of the daemon it looks at.
 */
import { join } from 'node:path';
import { readConfigFile } from '../../daemon/config.ts';
import { inspectHost } from '../../daemon/host-objects.ts';
import { openInventory } from '../../daemon/inventory/inventory.ts';
import { realParts } from '../../daemon/main.ts';
import { silentLog } from '../../lib/log.ts';
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';

const [stateDirectory = '', runDirectory = ''] = process.argv.slice(2);
const inventory = openInventory(join(stateDirectory, 'roost.db'));
const instance = inventory.meta.get('instance') as InstanceId;
const privileged = process.getuid?.() === 0;
const config = { ...readConfigFile('/nonexistent', false), stateDirectory, runDirectory };
const parts = realParts({
  config,
  inventory,
  instance,
  privileged,
  imagesGid: privileged ? 1 : undefined,
  log: silentLog(),
});
const host = await inspectHost(
  parts,
  { instance, stateDirectory, runDirectory },
  new AbortController().signal,
);
const ledger = [...inventory.ledger.keys()].sort();
process.stdout.write(JSON.stringify({ ledger, host: host.map(hostObjectKey) }));
inventory.db.close();
process.exit(0);

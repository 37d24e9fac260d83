import { afterAll, beforeAll } from 'vitest';
import { networkConformance } from '../../conformance/network.ts';
import { linuxBridgeBench, prepareNamespace, run } from './bench.ts';

beforeAll(async () => {
  await prepareNamespace();
  // Bridges of somebody else, for networks of kind bridge to join.
  for (const number of [1, 2, 3]) await run('ip', ['link', 'add', `lan${number}`, 'type', 'bridge']);
});
afterAll(async () => {
  for (const number of [1, 2, 3]) await run('ip', ['link', 'delete', `lan${number}`]);
});

networkConformance('linux-bridge', ['nat', 'isolated', 'bridge'], linuxBridgeBench);

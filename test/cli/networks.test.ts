import { expect, test } from 'vitest';
import { printNetworks } from '../../cli/print/lists.ts';
import { networkView } from '../../protocol/network.ts';

const network = (name: string, more: object = {}) =>
  networkView.parse({
    id: '5a9c7f5a-1b2c-4d3e-8f90-a1b2c3d4e5f6',
    name,
    kind: 'nat',
    state: 'ready',
    usedBy: [],
    createdAt: 1,
    ...more,
  });

test('networks are shown with the names of their guests, and whom to ask where the host does not know them', () => {
  const lines = printNetworks([
    network('lan', { names: { domain: 'lan', server: '10.91.1.1', onHost: false } }),
    network('dmz', { names: { domain: 'dmz', server: '10.91.2.1', onHost: true } }),
    network('mine', { kind: 'user' }),
  ]);
  expect(lines.map((line) => line.trim().split(/ {2,}/))).toEqual([
    ['NAME', 'KIND', 'STATE', 'SUBNET', 'GATEWAY', 'BRIDGE', 'NAMES', 'USED BY'],
    ['lan', 'nat', 'ready', '-', '-', '-', '*.lan @10.91.1.1', '-'],
    ['dmz', 'nat', 'ready', '-', '-', '-', '*.dmz', '-'],
    ['mine', 'user', 'ready', '-', '-', '-', '-', '-'],
  ]);
});

/** The text of the rules, against files that a person has read; what they do is tried in linux-bridge/. */
import { describe, expect, it } from 'vitest';
import {
  addElementsText,
  deleteElementsText,
  elementObject,
  forwardElements,
  networkElements,
  portElements,
  tablesRemovalText,
  tablesText,
} from '../../network/ruleset.ts';
import type { InstanceId, MacAddress } from '../../protocol/types.ts';

const instance = 'abcde' as InstanceId;
const mac = '52:54:00:12:34:56' as MacAddress;
const golden = (name: string): string => `../golden/ruleset/${name}.nft`;

const nat = networkElements({ bridge: 'rbabcde1', kind: 'nat', subnet: '10.91.1.0/24' });
const isolated = networkElements({ bridge: 'rbabcde2', kind: 'isolated', subnet: '10.91.2.0/24' });
const port = portElements({ link: 'rtabcdea0', mac, ipv4: '10.91.1.2' });

const forwards = forwardElements('10.91.1.2', [
  { protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 8080, guestPort: 80 },
  { protocol: 'udp', hostAddress: '127.0.0.1', hostPort: 5300, guestPort: 53 },
]);

describe('the rules', () => {
  it.each([
    ['tables', tablesText(instance)],
    ['tables-removal', tablesRemovalText(instance)],
    ['nat-network-add', addElementsText(instance, nat)],
    ['nat-network-delete', deleteElementsText(instance, nat)],
    ['isolated-network-add', addElementsText(instance, isolated)],
    ['port-add', addElementsText(instance, port)],
    ['forwards-add', addElementsText(instance, forwards)],
    ['forwards-delete', deleteElementsText(instance, forwards)],
    ['port-delete', deleteElementsText(instance, port)],
    ['port-without-address-add', addElementsText(instance, portElements({ link: 'rtabcdea1', mac }))],
  ])('of %s', async (name, text) => {
    await expect(text).toMatchFileSnapshot(golden(name));
  });

  it('name their elements for the ledger', () => {
    expect([...nat, ...port, ...forwards].map((element) => elementObject(instance, element).name)).toEqual([
      'inet/roost_abcde/bridged/rbabcde1 . rbabcde1',
      'inet/roost_abcde/nat_bridges/rbabcde1',
      'inet/roost_abcde/nat_subnets/10.91.1.0/24',
      'bridge/roost_abcde/mac/rtabcdea0 . 52:54:00:12:34:56',
      'bridge/roost_abcde/ip4/rtabcdea0 . 52:54:00:12:34:56 . 10.91.1.2',
      'inet/roost_abcde/port_forwards/tcp . 8080',
      'inet/roost_abcde/address_forwards/127.0.0.1 . udp . 5300',
    ]);
  });
});

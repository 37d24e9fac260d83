import { describe, expect, test } from 'vitest';
import { foreignFirewalls, type NftChain } from '../../network/foreign-firewalls.ts';
import type { InstanceId } from '../../protocol/types.ts';

const instance = 'abcde' as InstanceId;
const chain = (family: string, table: string, name: string, more: Partial<NftChain> = {}): NftChain => ({
  family,
  table,
  name,
  ...more,
});
const forward = { hook: 'forward', policy: 'drop' } as const;

const docker = [chain('ip', 'filter', 'FORWARD', forward), chain('ip', 'filter', 'DOCKER-USER')];
const firewalld = [chain('inet', 'firewalld', 'filter_FORWARD', { hook: 'forward', policy: 'accept' })];
const ufw = [chain('ip', 'filter', 'FORWARD', forward), chain('ip', 'filter', 'ufw-before-forward')];

describe('firewalls of others', () => {
  test.each([
    ['Docker', docker, 'iptables -I DOCKER-USER -i rbabcde+ -j ACCEPT'],
    ['firewalld', firewalld, 'firewall-cmd --permanent --zone=trusted'],
    ['ufw', ufw, 'ufw route allow'],
    ['table inet mine', [chain('inet', 'mine', 'guard', forward)], 'in the chain inet mine guard'],
  ])('%s is named, with what lets our networks pass', (who, chains, hint) => {
    expect(foreignFirewalls(instance, chains)).toEqual([
      { who, chain: expect.any(String), hint: expect.stringContaining(hint) },
    ]);
  });

  test.each([
    ['a policy that accepts', [chain('ip', 'filter', 'FORWARD', { hook: 'forward', policy: 'accept' })]],
    ['what drops elsewhere', [chain('ip', 'filter', 'INPUT', { hook: 'input', policy: 'drop' })]],
    ['another protocol', [chain('ip6', 'filter', 'FORWARD', forward)]],
    [
      'our own',
      [chain('inet', 'roost_abcde', 'forward', forward), chain('inet', 'roost_other', 'f', forward)],
    ],
    ['chains without a hook', [chain('ip', 'filter', 'DOCKER-USER')]],
    ['nothing', []],
  ])('%s is not named', (_, chains) => {
    expect(foreignFirewalls(instance, chains)).toEqual([]);
  });

  test('Docker is not named once somebody lets our bridges pass, and nobody else is let off by that', () => {
    const exempted = 'chain DOCKER-USER { iifname "rbabcde*" counter packets 0 bytes 0 accept }';
    expect(foreignFirewalls(instance, docker, exempted)).toEqual([]);
    expect(foreignFirewalls('other' as InstanceId, docker, exempted)).toHaveLength(1);
    expect(foreignFirewalls(instance, firewalld, exempted)).toHaveLength(1);
  });
});

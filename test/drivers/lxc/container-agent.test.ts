import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { interfacesIn } from '../../../drivers/lxc/container-agent.ts';
import { agentInterface } from '../../../protocol/agent.ts';
import { RoostError } from '../../../protocol/errors.ts';

const loopback = {
  ifname: 'lo',
  address: '00:00:00:00:00:00',
  addr_info: [{ family: 'inet', local: '127.0.0.1', prefixlen: 8, label: 'lo' }],
};
const eth0 = {
  ifindex: 2,
  ifname: 'eth0',
  flags: ['BROADCAST', 'UP'],
  address: '52:54:00:00:00:01',
  addr_info: [
    { family: 'inet', local: '10.91.7.2', prefixlen: 24, scope: 'global' },
    { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link' },
  ],
};

const outcome = (text: string): string => {
  try {
    const { success } = z.array(agentInterface).safeParse(interfacesIn(text));
    return success ? 'in form' : 'in no form';
  } catch (error) {
    return error instanceof RoostError ? error.class : String(error);
  }
};

describe('the interfaces of a container', () => {
  it('have their names, hardware addresses and addresses', () => {
    expect(interfacesIn(`${JSON.stringify([loopback, {}, eth0])}\n`)).toEqual([
      { name: 'lo', ipAddresses: [{ ipAddress: '127.0.0.1', ipAddressType: 'ipv4', prefix: 8 }] },
      {
        name: 'eth0',
        hardwareAddress: '52:54:00:00:00:01',
        ipAddresses: [
          { ipAddress: '10.91.7.2', ipAddressType: 'ipv4', prefix: 24 },
          { ipAddress: 'fe80::1', ipAddressType: 'ipv6', prefix: 64 },
        ],
      },
    ]);
  });

  it('are called what the container calls them, but for what no text has', () => {
    const named = '[{"ifname":"a\u0001\u001b\ufffdb\u0085","addr_info":[]},{"ifname":"\\"\'\\u0007"}]';
    expect(interfacesIn(named).map(({ name }) => name)).toEqual(['a  \ufffdb ', '"\'\u0007']);
  });

  it.each([
    '',
    'null',
    '{}',
    '[[]]',
    '[{"ifname":"eth0"',
    '[{"ifname":7}]',
    JSON.stringify([{ ifname: 'x'.repeat(65) }]),
    JSON.stringify([{ ifname: 'a', addr_info: [{ local: '10.0.0.1', prefixlen: 129 }] }]),
    '[{"ifname":"a","addr_info":{"length":9}}]',
  ])('are not to be had of %j', (text) => {
    expect(() => interfacesIn(text)).toThrow(expect.objectContaining({ class: 'Unavailable' }));
  });

  it('are what they have to be, or refused, whatever is said', () => {
    const anything = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.json(),
      fc
        .array(
          fc.record(
            {
              ifname: fc.oneof(fc.string({ unit: 'binary' }), fc.jsonValue()),
              address: fc.oneof(fc.string(), fc.jsonValue()),
              addr_info: fc.array(
                fc.record(
                  { local: fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), prefixlen: fc.integer() },
                  { requiredKeys: [] },
                ),
              ),
            },
            { requiredKeys: [] },
          ),
        )
        .map((links) => JSON.stringify(links)),
    );
    fc.assert(
      fc.property(anything, (text) => {
        expect(outcome(text)).toMatch(/^(in form|Unavailable)$/);
      }),
    );
  });
});

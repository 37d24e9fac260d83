import { describe, expect, it } from 'vitest';
import { vethPort } from '../../network/veth-port.ts';
import { networkPlace, portSpec } from '../conformance/network.ts';

const directories = { stateDirectory: '/nowhere/state', runDirectory: '/nowhere/run' };
const veth = (kind: 'nat' | 'isolated' | 'bridge', change: { ipv4?: string } = {}) => {
  const network = networkPlace(directories, 7, kind);
  const { ipv4: _kept, ...port } = portSpec(network, 1);
  return vethPort(network, { ...port, ...change });
};

describe('a veth port', () => {
  const links = { kind: 'veth', link: 'rvconf110', peer: 'rpconf110', mac: '52:54:00:00:00:01' };

  it('tells what its guest would get by DHCP', () => {
    const own = { address: '10.91.7.2', prefixLength: 24 };
    expect(veth('nat', { ipv4: own.address })).toEqual({ ...links, ipv4: { ...own, gateway: '10.91.7.1' } });
    expect(veth('isolated', { ipv4: own.address })).toEqual({ ...links, ipv4: own });
  });

  it('tells no address where none is kept, and none of a subnet that is not known', () => {
    expect(veth('nat')).toEqual(links);
    expect(veth('bridge', { ipv4: '192.0.2.7' })).toEqual(links);
  });
});

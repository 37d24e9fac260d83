import { describe, expect, it } from 'vitest';
import { parseForward } from '../../cli/forward.ts';
import { sshArguments, sshTarget } from '../../cli/ssh.ts';

type Addresses = Parameters<typeof sshTarget>[0];
type Address = Addresses['nics'][number]['addresses'][number];
const found = (...addresses: Address[]): Addresses => ({
  name: 'web',
  nics: [
    {
      name: 'nic0',
      network: 'default',
      mac: '52:54:00:00:00:01' as Addresses['nics'][number]['mac'],
      addresses,
      droppedFrames: {},
    },
  ],
});

describe('the target of ssh', () => {
  it('is the address with the best evidence; what only the guest says comes last', () => {
    const neighbour: Address = { address: '10.91.0.2', source: 'neighbour', state: 'reachable' };
    const reserved: Address = { address: '10.91.0.9', source: 'reserved' };
    const agent: Address = { address: '192.0.2.7', source: 'agent' };
    expect(sshTarget(found(neighbour, reserved, agent), 22)).toEqual({ host: '10.91.0.2', port: 22 });
    expect(sshTarget(found(reserved, agent), 2222)).toEqual({ host: '10.91.0.9', port: 2222 });
    expect(sshTarget(found(agent), 22)).toEqual({ host: '192.0.2.7', port: 22 });
    expect(sshTarget(found({ ...agent, address: '127.0.0.1' }), 22)).toBeUndefined();
    expect(sshTarget(found(), 22)).toBeUndefined();
  });

  it('is the forwarded port of the guest port that is asked for', () => {
    const forward: Address = {
      address: '0.0.0.0',
      source: 'forward',
      port: 20_000,
      guestPort: 22,
      protocol: 'tcp',
    };
    expect(sshTarget(found(forward), 22)).toEqual({ host: '127.0.0.1', port: 20_000 });
    expect(sshTarget(found(forward), 80)).toBeUndefined();
  });
});

describe('the command line of ssh', () => {
  it('keeps the host key under the id of the guest, and ends options before the host', () => {
    const line = sshArguments({
      target: { host: '10.91.0.2', port: 22 },
      guestId: 'the-id',
      knownHostsFile: '/c/known_hosts/the-id',
      user: 'debian',
      identity: 'key',
      attempts: 9,
      command: ['ls', '-l'],
    });
    expect(line.join(' ')).toBe(
      'ssh -o HostKeyAlias=the-id -o UserKnownHostsFile=/c/known_hosts/the-id -o StrictHostKeyChecking=accept-new -o CheckHostIP=no -o ConnectionAttempts=9 -i key -l debian -p 22 -- 10.91.0.2 ls -l',
    );
  });
});

describe('a forwarded port', () => {
  it.each([
    ['22', { guestPort: 22 }],
    ['8080:80', { hostPort: 8080, guestPort: 80 }],
    ['0.0.0.0:5353:53/udp', { hostAddress: '0.0.0.0', hostPort: 5353, guestPort: 53, protocol: 'udp' }],
  ])('%s is typed as %j', (text, forward) => {
    expect(parseForward(text)).toEqual(forward);
  });

  it.each(['', 'http', '1:2:3', '80/sctp', '10.0.0.1:80'])('%j is none', (text) => {
    expect(() => parseForward(text)).toThrow('is not a forwarded port');
  });
});

import { describe, expect, it } from 'vitest';
import { fakeNetworkBackend } from '../../network/fake/fake-network.ts';
import { userNetworkBackend } from '../../network/user/user-network.ts';
import { networkConformance, networkPlace, portSpec } from '../conformance/network.ts';

const places = { stateDirectory: '/nowhere/state', runDirectory: '/nowhere/run' };
const release = async (): Promise<void> => undefined;

networkConformance('user', ['user'], async () => ({ ...places, release, backend: userNetworkBackend }));

networkConformance('fake', ['nat', 'isolated', 'user'], async () => {
  const backend = fakeNetworkBackend();
  return { ...places, release, backend: () => backend };
});

describe('the fake backend', () => {
  it('fails where it is told to, before anything is changed', async () => {
    const refusal = new Error('no');
    const backend = fakeNetworkBackend({
      before: (call) => {
        if (call === 'attach') throw refusal;
      },
    });
    const network = networkPlace(places, 1, 'nat');
    const { signal } = new AbortController();
    await backend.ensure(network, signal);
    await expect(backend.attach(network, portSpec(network, 1), signal)).rejects.toBe(refusal);
    expect([...backend.host.values()]).toEqual(backend.plan(network));
  });
});

/** Tells a guest who it is: its names and its place on its networks. */
import { isRoostError } from '../../protocol/errors.ts';
import type { GuestSetup } from '../driver.ts';
import type { MicrovmAgent } from './microvm-agent.ts';

/** The agent keeps the order of what it does at once. */
export const tellWhoItIs = (agent: MicrovmAgent, setup: GuestSetup, signal: AbortSignal): Promise<void>[] => [
  ...setup.links.map((link, index) => setUpLink(agent, link, setup.fork?.macs[index], signal)),
  setIdentity(agent, setup, signal),
];

const setUpLink = async (
  agent: MicrovmAgent,
  { mac, addresses, gateway }: GuestSetup['links'][number],
  before: string | undefined,
  signal: AbortSignal,
): Promise<void> => {
  const routes = gateway === undefined ? [] : [{ destination: '0.0.0.0/0', gateway }];
  const newMac = before === undefined ? {} : { newMac: mac };
  await agent.setLink(
    { mac: before ?? mac },
    { ...newMac, up: true, addresses, routes, replace: true },
    signal,
  );
};

/** An init that an earlier Roost built wants it in three requests. */
export const setIdentity = async (
  agent: MicrovmAgent,
  setup: GuestSetup,
  signal: AbortSignal,
): Promise<void> => {
  const { hostname, machineId, resolver, hosts } = setup;
  try {
    await agent.setIdentity({ hostname, machineId, names: { resolver, hosts } }, signal);
  } catch (error) {
    if (!isRoostError(error) || error.data?.['errno'] !== 'EINVAL') throw error;
    await agent.setIdentity({ hostname, machineId }, signal);
    await agent.setResolver(resolver, signal);
    await agent.setHosts(hosts, signal);
  }
};

/** Leaves a guest as its forks are to find it: done once here is what each of them would do. */
import { randomBytes } from 'node:crypto';
import { isRoostError } from '../../protocol/errors.ts';
import type { GuestInit } from '../driver.ts';
import type { MicrovmAgent } from './microvm-agent.ts';
import { likelyFiles, readAhead } from './read-ahead.ts';
import { rehearse } from './rehearse.ts';
import { setIdentity } from './tell-identity.ts';

const SEED_BYTES = 64;

/** `number`: one that no program in the guest has. */
export const prepareTemplate = async (
  agent: MicrovmAgent,
  { token, setup }: Parameters<GuestInit['prepareForForks']>[0],
  number: number,
  signal: AbortSignal,
): Promise<void> => {
  await agent.seed(randomBytes(SEED_BYTES), signal);
  await agent.setClock(BigInt(Date.now()) * 1_000_000n, signal);
  await setIdentity(agent, setup, signal);
  for (const path of likelyFiles(setup.program)) await readAhead(agent, path, signal);
  await rehearse(agent, number, signal, setup.program);
  await agent.setIdentity({ token: Buffer.from(token) }, signal);
  await agent.sync(signal);
  await settle(agent, signal);
};

const settle = async (agent: MicrovmAgent, signal: AbortSignal): Promise<void> => {
  try {
    await agent.settle(signal);
  } catch (error) {
    // An init that an earlier Roost built knows no such request: its forks are later, and none the worse.
    if (!isRoostError(error) || error.data?.['errno'] !== 'ENOSYS') throw error;
  }
};

/** Finds out about the agent's channel of a process that an earlier daemon launched, by asking QEMU and not the guest. */
import { AGENT_CHARDEV } from '../launch-args.ts';
import type { Monitor } from '../monitor.ts';
import type { AgentClient } from './agent-client.ts';

/** The client, knowing whether the guest has the channel open now; undefined when the process has no channel. */
export const agentOf = async (
  monitor: Pick<Monitor, 'execute'>,
  agent: AgentClient | undefined,
  signal: AbortSignal,
): Promise<AgentClient | undefined> => {
  const chardevs = await monitor.execute('query-chardev', {}, signal);
  const channel = chardevs.find(({ label }) => label === AGENT_CHARDEV);
  if (channel) agent?.portChanged(channel['frontend-open']);
  return channel && agent;
};

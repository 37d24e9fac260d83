/** What has to be found out about a process that an earlier daemon launched, and that may have run for long. */

import type { AgentEnd } from '../processes/agent-end.ts';
import type { EventLog } from '../processes/event-log.ts';
import type { Monitor } from '../processes/monitor.ts';
import { openEnd } from './agent/agent-channel.ts';

export interface TakenOver {
  readonly accel: 'kvm' | 'tcg';
  /** Knows whether the guest has the channel open; undefined where there is none. */
  readonly agent: AgentEnd | undefined;
}

/** Asks all at once, and tells what happened meanwhile. Errors: those of the monitor; the monitor is closed then. */
export const takeOver = async (
  {
    monitor,
    events,
    agent,
  }: { readonly monitor: Monitor; readonly events: EventLog; readonly agent: AgentEnd | undefined },
  signal: AbortSignal,
): Promise<TakenOver> => {
  try {
    const [{ enabled }, end] = await Promise.all([
      monitor.execute('query-kvm', {}, signal),
      openEnd(monitor, agent, signal),
      events.read(),
    ]);
    return { accel: enabled ? 'kvm' : 'tcg', agent: end };
  } catch (error) {
    await monitor.close();
    throw error;
  }
};

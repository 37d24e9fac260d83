/**
 * The host's end of a guest's agent, whichever it is: QEMU's guest agent or our own init. Which one a process has that an
 * earlier daemon launched is asked of QEMU and of the host, not of the guest.
 */
import { access } from 'node:fs/promises';
import type { Log } from '../../../lib/log.ts';
import type { GuestPlace, Launch } from '../../driver.ts';
import type { AgentEnd } from '../../processes/agent-end.ts';
import { agentPath, logPath, streamsPath } from '../../processes/guest-files.ts';
import type { Monitor } from '../../processes/monitor.ts';
import { MicrovmClient } from '../../roost-agent/microvm-client.ts';
import { AGENT_CHARDEV } from '../launch-args.ts';
import { AgentClient } from './agent-client.ts';

/** The end of a guest that is launched. */
export const agentEnd = (
  place: GuestPlace,
  { agent, ownInit = false }: Pick<Launch, 'agent' | 'ownInit'>,
  log: Log,
): AgentEnd | undefined => {
  const { runDirectory } = place;
  if (ownInit)
    return new MicrovmClient({
      paths: { control: agentPath(runDirectory), streams: streamsPath(runDirectory) },
      programLog: logPath(place, 'program'),
      log,
    });
  return agent ? new AgentClient(agentPath(runDirectory)) : undefined;
};

/** The end of a process that is taken over: by the sockets that lie beside its monitor. */
export const agentEndOf = async (place: GuestPlace, log: Log): Promise<AgentEnd> => {
  const ownInit = await access(streamsPath(place.runDirectory)).then(
    () => true,
    () => false,
  );
  return agentEnd(place, { agent: true, ownInit }, log) ?? new AgentClient(agentPath(place.runDirectory));
};

/** The end, knowing whether the guest has the channel open now; undefined when the process has no channel. */
export const openEnd = async (
  monitor: Pick<Monitor, 'execute'>,
  agent: AgentEnd | undefined,
  signal: AbortSignal,
): Promise<AgentEnd | undefined> => {
  const chardevs = await monitor.execute('query-chardev', {}, signal);
  const channel = chardevs.find(({ label }) => label === AGENT_CHARDEV);
  if (channel) agent?.portChanged(channel['frontend-open']);
  return channel && agent;
};

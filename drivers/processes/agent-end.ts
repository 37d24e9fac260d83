/** The host's end of the channel to an agent in a guest, whichever agent it is. */
import type { GuestAgent, Observer } from '../driver.ts';

export interface AgentEnd extends GuestAgent {
  /** An event, or the monitor's answer, about the guest's end of the channel. */
  portChanged(isOpen: boolean): void;
  /** The same observer, behind this end: whoever is told of the agent can ask it already. */
  listening(observe: Observer): Observer;
  /** Lets go of the channel; what waits is told. May be called twice. */
  close(): void;
}

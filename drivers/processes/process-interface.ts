/** What every guest's process inherits, and the name of its agent in its events: the same for QEMU and for the warden. */

/** Numbers of the descriptors that it inherits; what only some have, follows from `further` on. */
export const descriptorNumbers = {
  /** A file with the one command that negotiates the black box. */
  blackBoxInput: 0,
  blackBox: 1,
  processLog: 2,
  lock: 3,
  monitor: 4,
  console: 5,
  consoleLog: 6,
  further: 7,
} as const;

/** The agent's port, as VSERPORT_CHANGE names it. */
export const AGENT_PORT_ID = 'agent0';

/** How the init of a guest ended whose init is a process of this host; told after its SHUTDOWN. */
export const INIT_END_EVENT = 'CONTAINER_END';

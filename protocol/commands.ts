/** The whole contract: every command, by its name. */
import type { z } from 'zod';
import type { CommandDeclaration } from './command.ts';
import * as agent from './commands/agent.ts';
import * as container from './commands/container.ts';
import * as device from './commands/device.ts';
import * as fsck from './commands/fsck.ts';
import * as guest from './commands/guest.ts';
import * as host from './commands/host.ts';
import * as image from './commands/image.ts';
import * as network from './commands/network.ts';
import * as operation from './commands/operation.ts';
import * as qmpLog from './commands/qmp-log.ts';
import * as session from './commands/session.ts';

const declared = [
  session.qmpCapabilities,
  session.queryVersion,
  session.queryCommands,
  session.querySchema,
  session.eventsSubscribe,
  session.queryEvents,
  session.tokenCreate,
  session.tokenRevoke,
  session.queryTokens,
  host.queryHost,
  host.queryDaemon,
  host.queryPools,
  host.hostShutdownGuests,
  fsck.queryFsck,
  fsck.fsckRepair,
  guest.guestCreate,
  guest.guestUpdate,
  guest.guestRename,
  guest.guestStart,
  guest.templateCreate,
  guest.guestFork,
  container.guestClone,
  container.guestSave,
  guest.guestStop,
  guest.guestReset,
  guest.guestPause,
  guest.guestResume,
  guest.guestDelete,
  device.guestDiskAttach,
  device.guestDiskDetach,
  device.guestDiskResize,
  device.guestDiskDelete,
  device.guestNicAttach,
  device.guestNicDetach,
  guest.guestResetState,
  device.guestCdromInsert,
  device.guestCdromEject,
  device.queryDisks,
  guest.guestAdopt,
  guest.guestPlan,
  guest.queryGuests,
  guest.queryGuest,
  guest.queryGuestHistory,
  guest.queryGuestLog,
  qmpLog.queryGuestQmpLog,
  guest.queryGuestCloudInit,
  guest.guestConsole,
  guest.guestWait,
  guest.queryGuestAddresses,
  agent.guestInfo,
  agent.guestNetworkGetInterfaces,
  agent.guestExec,
  agent.guestExecSession,
  agent.guestAttach,
  agent.guestExecStatus,
  agent.guestSignal,
  agent.queryGuestProcesses,
  agent.guestFileOpen,
  agent.guestFileRead,
  agent.guestFileWrite,
  agent.guestFileSeek,
  agent.guestFileClose,
  agent.guestFsfreezeStatus,
  agent.guestFsfreezeFreeze,
  agent.guestFsfreezeThaw,
  operation.queryOperations,
  operation.queryOperation,
  operation.operationCancel,
  operation.operationWait,
  image.imageImport,
  image.imagePull,
  image.imageBuild,
  image.imageDelete,
  image.imagePrune,
  image.imageAliasSet,
  image.imageAliasDelete,
  image.queryImage,
  image.queryImages,
  network.networkCreate,
  network.networkDelete,
  network.queryNetworks,
] as const;

type Declared = (typeof declared)[number];
export type CommandName = Declared['name'];
type CommandOf<N extends CommandName> = Extract<Declared, { name: N }>;

/** What a caller may send, before defaults are filled in. */
export type CommandInput<N extends CommandName> = z.input<CommandOf<N>['arguments']>;
/** What a handler gets. */
export type CommandArguments<N extends CommandName> = z.output<CommandOf<N>['arguments']>;
export type CommandReturn<N extends CommandName> = z.output<CommandOf<N>['returns']>;

export const commandNames: readonly CommandName[] = declared.map((command) => command.name);

const byName: ReadonlyMap<string, CommandDeclaration<CommandName>> = new Map(
  declared.map((command) => [command.name, command as CommandDeclaration<CommandName>]),
);

export const findCommand = (name: string): CommandDeclaration<CommandName> | undefined => byName.get(name);

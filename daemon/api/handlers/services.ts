/** What the handlers call: each service once. */
import type { DaemonView, HostView, PoolView } from '../../../protocol/host.ts';
import type { EventLog } from '../../event-log.ts';
import type { Fsck } from '../../fsck/fsck.ts';
import type { Adoptions } from '../../guests/adoption.ts';
import type { Consoles } from '../../guests/console.ts';
import type { GuestDevices } from '../../guests/guest-devices.ts';
import type { Guests } from '../../guests/guests.ts';
import type { Histories } from '../../guests/histories.ts';
import type { HostShutdown } from '../../host-shutdown.ts';
import type { ImageBuilds } from '../../image-builds.ts';
import type { ImagePulls } from '../../image-pulls.ts';
import type { Images } from '../../images.ts';
import type { Networks } from '../../networks.ts';
import type { Operations } from '../../operations/operations.ts';
import type { RootSaves } from '../../root-saves.ts';
import type { Tokens } from '../../tokens.ts';

export interface Services {
  readonly guests: Guests;
  readonly devices: GuestDevices;
  readonly histories: Histories;
  readonly adoptions: Adoptions;
  readonly images: Images;
  readonly imageBuilds: ImageBuilds;
  readonly imagePulls: ImagePulls;
  readonly rootSaves: RootSaves;
  readonly networks: Networks;
  readonly operations: Operations;
  readonly eventLog: EventLog;
  readonly tokens: Tokens;
  readonly fsck: Fsck;
  readonly hostShutdown: HostShutdown;
  readonly consoles: Consoles;
  readonly describeHost: (signal: AbortSignal) => Promise<HostView>;
  readonly describeDaemon: () => DaemonView;
  readonly describePools: () => Promise<PoolView[]>;
}

/** All that a guest's loop works with; built once by whoever composes the daemon. */
import type { Credentials, Driver } from '../../drivers/driver.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { IdRange } from '../../protocol/container.ts';
import type { DriverName } from '../../protocol/guest.ts';
import type { GuestId, InstanceId, NetworkId } from '../../protocol/types.ts';
import type { Pool } from '../../storage/pool.ts';
import type { EventLog } from '../event-log.ts';
import type { Images } from '../images.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { Networks } from '../networks.ts';
import type { Limits } from '../operations/limits.ts';
import type { Operations } from '../operations/operations.ts';
import type { Guest } from './guest.ts';

export interface House {
  readonly inventory: Inventory;
  readonly operations: Operations;
  readonly limits: Limits;
  readonly events: EventLog;
  readonly images: Images;
  readonly networks: Networks;
  readonly pool: Pool;
  readonly drivers: ReadonlyMap<DriverName, Driver>;
  readonly clock: Clock;
  readonly log: Log;
  readonly instance: InstanceId;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  /** Identity of a guest's process; undefined when the daemon has no privileges. */
  readonly credentialsOf: (guestNumber: number) => Credentials | undefined;
  /** Ids of a container, of which `taken` are others'. Errors: ResourceExhausted. */
  readonly idRangeFor: (guestNumber: number, taken: readonly IdRange[]) => IdRange;
  /** Aborts when the daemon stops; guests go on. */
  readonly stopping: AbortSignal;
  /** For an operation that concerns another guest as well. */
  readonly guestById: (id: GuestId) => Guest | undefined;
  /** The guests that wait as forks of a template. */
  readonly waiting: {
    /** Ends them; does nothing where there are none. Errors: HostError. */
    readonly endOf: (template: GuestId, signal: AbortSignal) => Promise<void>;
    /** Ends those that have one of these addresses, so that whoever wishes for it gets it. */
    readonly giveWay: (
      wished: readonly { readonly network: NetworkId; readonly ipv4?: string | undefined }[],
    ) => Promise<void>;
    /** How many are ready for whoever asks. */
    readonly readyOf: (template: GuestId) => number;
  };
}

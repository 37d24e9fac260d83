/** A live container: what every process of a guest can do, its limits, and the end of all that is in it. */
import { readFile } from 'node:fs/promises';
import { RoostError } from '../../protocol/errors.ts';
import { type DeviceNames, type GuestHandle, type GuestLimits, guestVerbs } from '../driver.ts';
import { lockPath } from '../processes/guest-files.ts';
import { ProcessGuest, type ProcessGuestParts } from '../processes/process-guest.ts';
import { whenFree } from '../processes/process-lock.ts';
import { nicsIn } from './container-config.ts';
import { configPath } from './container-files.ts';

/** It has no memory of its own that could be another's as well. */
export const lxcVerbs: GuestHandle['verbs'] = new Set(guestVerbs.filter((verb) => verb !== 'fork'));

export interface LxcGuestParts extends ProcessGuestParts {
  /** Ends what is in its groups still when its warden is gone, and removes them. May be done again. */
  readonly endRest: () => Promise<void>;
  readonly setLimits: (limits: GuestLimits) => Promise<void>;
}

export class LxcGuest extends ProcessGuest<LxcGuestParts> implements GuestHandle {
  readonly verbs = lxcVerbs;
  readonly init = undefined;
  readonly teller = undefined;

  /** A container that is frozen does not die with its warden before somebody thaws it. */
  override async kill(signal: AbortSignal): Promise<void> {
    await super.kill(signal);
    await this.parts.endRest();
    await whenFree(lockPath(this.parts.place));
  }

  protected override async afterEnd(): Promise<void> {
    const { place, log } = this.parts;
    await whenFree(lockPath(place)).catch((error: unknown) =>
      log.warn({ err: error }, 'a container left its lock held'),
    );
  }

  async setLimits(limits: GuestLimits, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await this.parts.setLimits(limits);
  }

  async devices(signal: AbortSignal): Promise<DeviceNames> {
    signal.throwIfAborted();
    const config = await readFile(configPath(this.parts.place), 'utf8');
    return { disks: new Set(), nics: new Set(nicsIn(config)) };
  }

  plug(): Promise<void> {
    return Promise.reject(fixed());
  }

  unplug(): Promise<void> {
    return Promise.reject(fixed());
  }
}

const fixed = (): RoostError =>
  new RoostError('Unsupported', 'A container takes no devices while it runs', {
    data: { driver: 'lxc' },
    hint: 'Stop the guest first.',
  });

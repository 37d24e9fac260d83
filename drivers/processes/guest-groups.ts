/** The control group of each guest's process: its name, how the process gets into it, its removal once that is gone. */
import type { ControlGroups } from '../../lib/control-groups.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { HostObject } from '../../protocol/host-object.ts';
import type { InstanceId } from '../../protocol/types.ts';
import type { GuestPlace, Launch } from '../driver.ts';
import { groupName, groupPrefix, isGuestGroup } from './guest-files.ts';
import type { LaunchGroup } from './launch.ts';
import type { ProcessGroups } from './process-driver.ts';

export class GuestGroups implements ProcessGroups {
  readonly #groups: ControlGroups;

  constructor(groups: ControlGroups) {
    this.#groups = groups;
  }

  objects(place: GuestPlace): readonly HostObject[] {
    const group = this.#groups.object(groupName(place));
    return group === undefined ? [] : [group];
  }

  /** How the process gets into its group: by what stands before the launcher, or by the launcher where that is wanted. */
  membership({ place, name }: Pick<Launch, 'place' | 'name'>): {
    readonly groupArgv: readonly string[];
    readonly groupDirectory?: string;
  } {
    const groupArgv = this.#groups.argv(groupName(place), `Guest ${name} of Roost`);
    const groupDirectory = this.#groups.directory(groupName(place));
    return { groupArgv, ...(groupDirectory === undefined ? {} : { groupDirectory }) };
  }

  around(place: GuestPlace): LaunchGroup {
    return {
      prepare: () => this.#groups.prepare(groupName(place)),
      join: (pid) => this.#join(place, pid),
      remove: () => this.remove(place),
    };
  }

  async #join(place: GuestPlace, pid: number): Promise<void> {
    try {
      await this.#groups.join(groupName(place), pid);
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      throw new RoostError(
        'HostError',
        `Process ${pid} could not join the control group ${groupName(place)}: ${said}`,
        {
          cause: error,
          data: { guest: place.id, pid },
          hint: 'See who else manages control groups on this host, and what the group limits.',
        },
      );
    }
  }

  /** May be done again. Errors: HostError while a process is in it. */
  async remove(place: GuestPlace): Promise<void> {
    try {
      // Bounded by itself, and what it belongs to cannot be given up.
      await this.#groups.remove(groupName(place), new AbortController().signal);
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      throw new RoostError(
        'HostError',
        `The control group ${groupName(place)} could not be removed: ${said}`,
        {
          cause: error,
          data: { guest: place.id },
          hint: 'See which processes are in it; fsck-repair removes it once it is empty.',
        },
      );
    }
  }

  async list(instance: InstanceId): Promise<readonly HostObject[]> {
    const groups = await this.#groups.list(groupPrefix(instance));
    return groups.filter(({ name }) => isGuestGroup(name));
  }
}

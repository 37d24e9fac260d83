/** The record of a network through its life: made with it, kept as it should be, removed after it. */
import { enter } from '../../lib/account.ts';
import { type HostObject, hostObjectKey } from '../../protocol/host-object.ts';
import type { NetworkId } from '../../protocol/types.ts';
import type { NetworkRecord } from '../inventory/network-table.ts';
import type { NetworksOptions } from '../networks.ts';
import type { Step } from '../operations/steps.ts';
import {
  networkRecordObject,
  networkRecordOf,
  removeNetworkRecord,
  writeNetworkRecord,
} from './network-records.ts';
import { recordOfNetwork, saysTheSame } from './record-of.ts';

export class NetworkRecordKeeping {
  readonly #options: Pick<NetworksOptions, 'instance' | 'inventory' | 'stateDirectory' | 'clock' | 'log'>;

  constructor(options: NetworksOptions) {
    this.#options = options;
  }

  object(id: NetworkId): HostObject {
    return networkRecordObject(this.#options.stateDirectory, id);
  }

  step(network: NetworkRecord): Step {
    return {
      name: 'record',
      do: async () => {
        await this.write(network);
        enter({ kind: 'made', object: hostObjectKey(this.object(network.id)) });
      },
      undo: () => this.remove(network.id),
    };
  }

  /** Networks of before there were records get theirs, and so do those whose record says something else. */
  async keep(network: NetworkRecord): Promise<void> {
    const { instance, inventory, stateDirectory, clock, log } = this.#options;
    const { id, name } = network;
    const found = await networkRecordOf(stateDirectory, id);
    if (found && saysTheSame(found, recordOfNetwork(instance, network))) return;
    try {
      inventory.db.soon(() =>
        inventory.ledger.record({ kind: 'network', id }, 'existence', [this.object(id)], clock.now()),
      );
      await this.write(network);
    } catch (error) {
      log.warn({ err: error, network: name }, 'the record of a network could not be written');
    }
  }

  async write(network: NetworkRecord): Promise<void> {
    const { instance, stateDirectory, clock } = this.#options;
    const record = { ...recordOfNetwork(instance, network), writtenAt: clock.now() };
    await writeNetworkRecord(stateDirectory, network.id, record);
  }

  async remove(id: NetworkId): Promise<void> {
    await removeNetworkRecord(this.#options.stateDirectory, id);
  }
}

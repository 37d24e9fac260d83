/** guest-clone is accepted here: in one durable transaction, with all that the new container gets for itself. */
import { randomUUID } from 'node:crypto';
import type { PinnedMachine } from '../../drivers/driver.ts';
import type { CommandArguments } from '../../protocol/commands.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { GuestId } from '../../protocol/types.ts';
import type { GuestRecord, StoredSpec } from '../inventory/guest-table.ts';
import { admit } from './admit.ts';
import { requireRooted } from './at-rest.ts';
import type { CloneRecord } from './cloning.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import type { MemoryPromises } from './memory-promises.ts';
import { allocateFor, createdBefore, insertGuest, insertStart } from './record-guest.ts';
import { type Asker, refuseTakenName, refuseWhileHostStops } from './refusals.ts';
import type { GuestRegistry } from './registry.ts';
import { randomMac } from './resolve-spec.ts';
import { type Warned, warned } from './warned.ts';

/** The same container once more, with NICs of its own at the same places. Its ids are given when it is recorded. */
const another = ({
  spec,
  machine,
}: Pick<GuestRecord, 'spec' | 'machine'>): { readonly spec: StoredSpec; readonly machine: PinnedMachine } => {
  const nics = spec.nics.map(({ name, network }) => ({ name, network, mac: randomMac() }));
  return {
    spec: { ...spec, nics },
    machine: {
      ...machine,
      nics: machine.nics.map((pinned, index) => ({ ...pinned, mac: nics[index]?.mac ?? pinned.mac })),
    },
  };
};

/** What it has not of the other. */
const lacks = ({ name, spec }: GuestRecord): string[] => {
  const ports = spec.nics.flatMap(({ forwards = [] }) => forwards).map(({ hostPort }) => hostPort);
  if (ports.length === 0) return [];
  const [what, stay] = ports.length === 1 ? ['Port', 'stays'] : ['Ports', 'stay'];
  return [
    `${what} ${ports.join(', ')} of the host ${stay} with ${name}: a port is passed on to one guest alone`,
  ];
};

/** In the accepting transaction, too. Errors: those of `admit`; NotFound for one that is gone. */
const requireCloneable = (source: Guest): void => {
  if (source.removed)
    throw new RoostError('NotFound', `There is no guest called ${source.name}`, {
      data: { guest: source.name },
      hint: 'query-guests lists them.',
    });
  const verdict = admit('guest-clone', source.standing);
  if (verdict.kind === 'deny') throw verdict.error;
};

export class GuestClones {
  readonly #house: House;
  readonly #registry: GuestRegistry;
  readonly #memory: MemoryPromises;

  constructor(house: House, registry: GuestRegistry, memory: MemoryPromises) {
    this.#house = house;
    this.#registry = registry;
    this.#memory = memory;
  }

  /** Errors: Unsupported for a machine; FailedPrecondition while the container runs; those of a creation. */
  async clone(args: CommandArguments<'guest-clone'>, asker: Asker): Promise<Warned> {
    const { inventory, operations } = this.#house;
    const { name, start, idempotencyKey } = args;
    const before = operations.repeated(idempotencyKey, 'guest-clone', name);
    if (before) return createdBefore(operations, before, start);
    if (start) refuseWhileHostStops(this.#house);
    const source = this.#registry.find(args.guest);
    requireRooted(source, 'cloned', 'guest-fork makes guests like one that runs.');
    requireCloneable(source);
    refuseTakenName(this.#house, name);
    const id = randomUUID() as GuestId;
    const { driver } = source;
    using _promised = start
      ? await this.#memory.promise({ name, spec: source.record.spec, driver })
      : undefined;
    const outcome = await inventory.db.durably(() => {
      const repeated = operations.repeated(idempotencyKey, 'guest-clone', name);
      if (repeated) return { kind: 'repeated', creation: repeated } as const;
      requireCloneable(source);
      refuseTakenName(this.#house, name);
      const recorded = source.recorded();
      const { spec, machine } = another(recorded);
      const stored = allocateFor(this.#house, { name, spec, busy: new Set() });
      const guest = insertGuest(
        { house: this.#house, registry: this.#registry },
        { id, name, spec: stored, machine },
        start ? 'running' : 'stopped',
        asker,
      );
      const kept: CloneRecord = { of: source.id };
      const creation = operations.insert({
        kind: 'guest-clone',
        subject: { kind: 'guest', id, name },
        actor: asker.actor,
        arguments: { ...args, ...kept },
        idempotencyKey,
      });
      const starting = start ? insertStart(guest, asker.actor) : undefined;
      return { kind: 'new', guest, creation, starting, warnings: lacks(recorded) } as const;
    });
    if (outcome.kind === 'repeated') return createdBefore(operations, outcome.creation, start);
    const { guest, creation, starting, warnings } = outcome;
    guest.markReconciled();
    this.#registry.add(guest);
    guest.enqueue(creation);
    if (starting) guest.enqueue(starting);
    return warned({ operation: (starting ?? creation).id, id }, warnings);
  }
}

/**
 * The memory that templates may have together. Where another wants more, those that nobody has forked for the longest time
 * end; they are made anew when somebody asks for a fork of them.
 */
import { Mailbox } from '../../lib/mailbox.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { Accepted } from '../../protocol/operation.ts';
import { mib, readHostMemory } from '../host-memory.ts';
import { isTemplate, isWarm } from './forks.ts';
import type { Guest } from './guest.ts';
import type { House } from './house.ts';
import type { MemoryDemander } from './memory-promises.ts';
import type { GuestRegistry } from './registry.ts';
import { givingRoom, type TemplateMemory } from './template-room.ts';

export interface TemplateBudgetOptions {
  readonly house: House;
  readonly registry: GuestRegistry;
  /** Of all together; half of the host's unless given. */
  readonly budgetBytes: number | undefined;
  /** Stops one, which is made anew when it is wanted. */
  readonly stop: (template: Guest, actor: 'policy:template') => Promise<Accepted>;
}

interface Holder extends TemplateMemory {
  readonly guest: Guest;
}

const isBeingMade = ({ unfinished }: Guest): boolean =>
  unfinished.some(({ kind }) => kind === 'template-create');

export class TemplateBudget {
  readonly #options: TemplateBudgetOptions;
  readonly #turns = new Mailbox();
  /** As far as this daemon knows; in milliseconds since the epoch. */
  readonly #askedAt = new WeakMap<Guest, number>();

  constructor(options: TemplateBudgetOptions) {
    this.#options = options;
  }

  /** Does what makes room and takes it, when whoever came before has taken theirs. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    return await this.#turns.post(work);
  }

  /** Somebody wants a fork of it. */
  asked(template: Guest): void {
    this.#askedAt.set(template, this.#options.house.clock.now());
  }

  /** For a guest that is to be a template. Errors: ResourceExhausted with the numbers; then nothing has ended. */
  async makeRoom({ name, spec, driver }: MemoryDemander, itself?: Guest): Promise<void> {
    const { house, stop } = this.#options;
    if (itself?.isLive()) return;
    const neededBytes = spec.memoryBytes + driver.overheadBytes(spec);
    const budgetBytes = this.#options.budgetBytes ?? (await readHostMemory()).totalBytes / 2;
    const holders = this.#holders();
    const given = givingRoom(neededBytes, budgetBytes, holders);
    if (!given) throw noRoom(name, { neededBytes, budgetBytes, holders });
    for (const { guest } of given) {
      const { operation } = await stop(guest, 'policy:template');
      const ended = await house.operations.wait(operation, house.stopping);
      if (ended.state !== 'succeeded') throw noRoom(name, { neededBytes, budgetBytes, holders });
    }
  }

  #holders(): readonly Holder[] {
    const { registry } = this.#options;
    return registry
      .all()
      .filter((guest) => (isTemplate(guest) && guest.isLive()) || isBeingMade(guest))
      .map((guest) => ({
        guest,
        name: guest.name,
        bytes: guest.record.spec.memoryBytes + guest.driver.overheadBytes(guest.record.spec),
        lastAskedAt: Math.max(guest.record.spec.template?.madeAt ?? 0, this.#askedAt.get(guest) ?? 0),
        mayGo: isTemplate(guest) && !isWarm(guest) && guest.unfinished.length === 0,
      }));
  }
}

const noRoom = (
  name: string,
  {
    neededBytes,
    budgetBytes,
    holders,
  }: { readonly neededBytes: number; readonly budgetBytes: number; readonly holders: readonly Holder[] },
): RoostError => {
  const takenBytes = holders.reduce((sum, { bytes }) => sum + bytes, 0);
  return new RoostError(
    'ResourceExhausted',
    `Template ${name} needs ${mib(neededBytes)} of the ${mib(budgetBytes)} that templates may have together; ${mib(takenBytes)} are taken`,
    {
      data: { neededBytes, budgetBytes, takenBytes, templates: holders.map((holder) => holder.name) },
      hint: 'Delete or stop one that nobody forks, or let them have more: templates.memoryBytes.',
    },
  );
};

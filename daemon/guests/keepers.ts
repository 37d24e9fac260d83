/**
 * Those who look after guests beside what is asked of each: the registry, policies, promises of memory, the budget of
 * templates, the guests that wait, and the creations that know of all of them. Here they are told of each other.
 */
import type { Config } from '../config.ts';
import { GuestClones } from './clones.ts';
import { GuestCreations } from './creations.ts';
import type { House } from './house.ts';
import { MemoryPromises } from './memory-promises.ts';
import { Policies, type PolicyDeeds } from './policies.ts';
import { Preparations } from './preparations.ts';
import { GuestRegistry } from './registry.ts';
import { TemplateBudget, type TemplateBudgetOptions } from './template-budget.ts';
import { WaitingGuests, type WaitingOptions } from './waiting.ts';

export interface Keepers {
  readonly registry: GuestRegistry;
  readonly policies: Policies;
  readonly memory: MemoryPromises;
  readonly waiting: WaitingGuests;
  readonly budget: TemplateBudget;
  readonly creations: GuestCreations;
  readonly clones: GuestClones;
}

/** How what they want of guests is accepted. */
export interface KeeperDeeds extends PolicyDeeds {
  readonly stopTemplate: TemplateBudgetOptions['stop'];
  readonly endWaiting: WaitingOptions['end'];
}

export const makeKeepers = (
  house: House,
  { memory: { reserveBytes }, templates }: Pick<Config, 'memory' | 'templates'>,
  { stopTemplate, endWaiting, ...deeds }: KeeperDeeds,
): Keepers => {
  const registry: GuestRegistry = new GuestRegistry(house, {
    restartDue: (guest) => void policies.restart(guest),
    deletionDue: (guest) => void (guest.isWaiting ? waiting.died(guest) : policies.delete(guest)),
  });
  const policies = new Policies(house, registry, deeds);
  const memory = new MemoryPromises(registry, reserveBytes);
  const preparations = new Preparations(house, registry, memory);
  const waiting = new WaitingGuests({
    house,
    registry,
    most: templates.waiting,
    make: (template) => preparations.make(template),
    end: endWaiting,
  });
  const budget = new TemplateBudget({
    house,
    registry,
    budgetBytes: templates.memoryBytes,
    stop: stopTemplate,
  });
  const creations = new GuestCreations(house, registry, {
    memory,
    waiting,
    budget,
    remake: (template) => void policies.remake(template).then(() => waiting.wake()),
  });
  const clones = new GuestClones(house, registry, memory);
  return { registry, policies, memory, waiting, budget, creations, clones };
};

/**
 * Every operation at every one of its steps, on fakes: it fails there, the daemon crashes there, and, because the next
 * daemon does all steps again, each of them runs twice. Afterwards ledger and host agree, the operation has an end, and
 * everything looks as if nothing had happened.
 */
import { describe, expect, test } from 'vitest';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { RoostError } from '../../protocol/errors.ts';
import { isEnded, type OperationView } from '../../protocol/operation.ts';
import {
  aContainer,
  aGuest,
  type FakeDaemon,
  type FakeHouse,
  fakeHouse,
  freezeAt,
} from '../daemon/fake-house.ts';
import {
  commandsWithoutRow,
  type OperationRow,
  rowsFor,
  type TableHost,
  titleOf,
  viewOf,
} from '../harness/operation-table.ts';

type Place = Parameters<StepObserver>[0];

const hostOf = (house: FakeHouse, daemon: FakeDaemon): TableHost => ({
  kind: 'fake',
  done: async (name, args) => void (await daemon.client.done(name, args)),
  guest: (name, more) => aGuest(name, more),
  container: (name, more) => aContainer(name, { boot: { kind: 'root', image: 'system' }, ...more }),
  image: 'base',
  file: '/images/further.raw',
  layout: '/images/layout',
  root: '/images/root.tar',
  openAgent: async (guest) => {
    const { id } = await daemon.client.call('query-guest', { guest });
    house.host.host.openAgent(id);
  },
});

/** A house in which the operation can be asked for. */
const prepared = async (row: OperationRow): Promise<FakeHouse> => {
  const house = await fakeHouse();
  house.images.offer('/images/base.raw', 1024 * 1024);
  house.images.offer('/images/further.raw', 2 * 1024 * 1024);
  house.images.offer('/images/root.tar', 1024 * 1024);
  house.oci.offer('/images/layout', `sha256:${'1'.repeat(64)}`);
  house.oci.offer('registry.example/container:1', `sha256:${'2'.repeat(64)}`);
  const daemon = await house.start();
  await daemon.client.done('image-import', { name: 'base', path: '/images/base.raw', format: 'raw' });
  await row.prepare?.(hostOf(house, daemon));
  await daemon.stop();
  return house;
};

const ask = async (daemon: FakeDaemon, row: OperationRow): Promise<OperationView['id']> => {
  const accepted = await daemon.client.call(row.command, row.ask(hostOf(daemon.house, daemon)));
  return (accepted as { operation: OperationView['id'] }).operation;
};

const wait = ({ client }: FakeDaemon, operation: OperationView['id']): Promise<OperationView> =>
  client.call('operation-wait', { operation });

const expectAgreement = async (daemon: FakeDaemon): Promise<void> => {
  expect(daemon.ledger).toEqual(await daemon.host());
};

const expectView = async (daemon: FakeDaemon, view: unknown): Promise<void> => {
  expect(await viewOf(daemon.client)).toEqual(view);
  await expectAgreement(daemon);
};

/** It ended well with a word about what did not, and goes again. */
const expectBorne = async (
  daemon: FakeDaemon,
  row: OperationRow,
  ended: OperationView,
  view: unknown,
): Promise<void> => {
  expect(ended.result).toMatchObject({ problems: [expect.any(String)] });
  expect((await wait(daemon, await ask(daemon, row))).state).toBe('succeeded');
  await expectView(daemon, view);
};

/** What failed can be asked for once more. */
const expectGoesAgain = async (daemon: FakeDaemon, row: OperationRow, view: unknown): Promise<void> => {
  if (row.twofold) {
    await expectAgreement(daemon);
    return;
  }
  const again = await wait(daemon, await ask(daemon, row));
  expect(again).toMatchObject({ state: 'succeeded' });
  await expectView(daemon, view);
};

interface Undisturbed {
  /** Every place that the operation comes to, in order. */
  readonly places: readonly Place[];
  readonly view: unknown;
}

const undisturbed = async (row: OperationRow): Promise<Undisturbed> => {
  const house = await prepared(row);
  const places: Place[] = [];
  const daemon = await house.start({ observeStep: (place) => void places.push(place) });
  expect(await wait(daemon, await ask(daemon, row))).toMatchObject({ state: 'succeeded' });
  await expectAgreement(daemon);
  return { places, view: await viewOf(daemon.client) };
};

/** Places of the undoing when the last step fails. */
const undoing = async (row: OperationRow, last: Place): Promise<readonly Place[]> => {
  const house = await prepared(row);
  const places: Place[] = [];
  const daemon = await house.start({
    observeStep: (place) => {
      if (same(place, last)) throw new RoostError('HostError', 'the test says no');
      if (place.moment.endsWith('-undo')) places.push(place);
    },
  });
  await wait(daemon, await ask(daemon, row));
  return places;
};

const same = (one: Place, other: Place): boolean =>
  one.kind === other.kind && one.step === other.step && one.moment === other.moment;

/** Whether a failure at this place comes when all is done. */
const endsWellAfter = (row: OperationRow, places: readonly Place[], place: Place): boolean => {
  const last = places.at(-1);
  return row.endsInNoReturn === true && last !== undefined && same(place, last);
};

const nameOf = ({ kind, step, moment }: Place): string => `${moment} ${step} of ${kind}`;

test('every changing command of the contract has a row', () => {
  expect(commandsWithoutRow()).toEqual([]);
});

describe.each(rowsFor('fake').map((row) => [titleOf(row), row] as const))('%s', (_title, row) => {
  test('is made good by the next daemon after a crash at each of its places', async () => {
    const { places, view } = await undisturbed(row);
    for (const place of places) {
      const house = await prepared(row);
      const { observeStep, reached, thaw } = freezeAt((each) => same(each, place));
      const doomed = await house.start({ observeStep });
      const operation = await ask(doomed, row);
      await reached;
      await doomed.crash(thaw);

      const next = await house.start();
      const ended = await wait(next, operation);
      await expectAgreement(next);
      const well = ended.state === 'succeeded' || (row.onceOnly === true && ended.state === 'failed');
      expect({ place: nameOf(place), well, ended }).toMatchObject({ place: nameOf(place), well: true });
      expect({ place: nameOf(place), view: await viewOf(next.client) }).toEqual({
        place: nameOf(place),
        view,
      });
      await next.stop();
    }
  });

  test('is undone after a failure at each of its places, and can be asked for again', async () => {
    const { places, view } = await undisturbed(row);
    for (const place of places) {
      const house = await prepared(row);
      let failing = true;
      const daemon = await house.start({
        observeStep: (each) => {
          if (failing && same(each, place)) throw new RoostError('HostError', 'the test says no');
        },
      });
      const ended = await wait(daemon, await ask(daemon, row));
      const isOver = endsWellAfter(row, places, place);
      const isBorne = place.kind === row.bears;
      const isWell = isOver || isBorne;
      const told = row.twofold === true || ended.error?.class === 'HostError';
      expect({ place: nameOf(place), state: ended.state, told }).toEqual({
        place: nameOf(place),
        state: isWell ? 'succeeded' : 'failed',
        told: !isWell,
      });
      failing = false;
      if (isBorne) await expectBorne(daemon, row, ended, view);
      else await (isOver ? expectView(daemon, view) : expectGoesAgain(daemon, row, view));
      await daemon.stop();
    }
  });

  test('is undone to its end by the next daemon after a crash at each place of the undoing', async () => {
    const { places, view } = await undisturbed(row);
    const last = places.findLast((place) => !endsWellAfter(row, places, place));
    if (last === undefined) return;
    for (const place of await undoing(row, last)) {
      const house = await prepared(row);
      const freeze = freezeAt((each) => same(each, place));
      const doomed = await house.start({
        observeStep: (each) => {
          if (same(each, last)) throw new RoostError('HostError', 'the test says no');
          return freeze.observeStep(each);
        },
      });
      const operation = await ask(doomed, row);
      await freeze.reached;
      await doomed.crash(freeze.thaw);

      const next = await house.start();
      const ended = await wait(next, operation);
      const taken = isEnded(ended.state) && ended.state !== 'succeeded';
      expect({ place: nameOf(place), taken, ended }).toMatchObject({ place: nameOf(place), taken: true });
      await expectGoesAgain(next, row, view);
      await next.stop();
    }
  });
});

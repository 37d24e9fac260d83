import { expect, it } from 'vitest';
import { roundsUnder } from '../../../daemon/guests/template-rounds.ts';
import type { GuestId } from '../../../protocol/types.ts';

it('a disk lies on one round of its own template, the first unless it says another', () => {
  const [mother, other] = ['m', 'o'] as GuestId[];
  if (!mother || !other) throw new Error('no templates');
  const disks = [
    { template: mother },
    { template: mother, templateRound: 2 },
    { template: other, templateRound: 3 },
    {},
  ];
  expect([...roundsUnder(disks, mother)]).toEqual([0, 2]);
});

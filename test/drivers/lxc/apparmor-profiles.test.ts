import { expect, it } from 'vitest';
import { profilesIn } from '../../../drivers/lxc/apparmor-profiles.ts';
import { place } from './container-parts.ts';

it('the profiles of a container are known by its id', () => {
  const list = [
    'lxc-container-default (enforce)',
    `lxc-${place.id}_</var/lib/roost/guests> (enforce)`,
    `lxc-${place.id}0_</var/lib/roost/guests> (enforce)`,
    'lxc-00000000-0000-4000-8000-000000000000_</var/lib/roost/guests> (enforce)',
    '/usr/bin/lxc-start (enforce)',
    '',
  ].join('\n');
  expect(profilesIn(list, place.id)).toEqual([`lxc-${place.id}_</var/lib/roost/guests>`]);
});

import { expect, it } from 'vitest';
import { chooseModes } from '../../../daemon/guests/choose-filesystems.ts';

const filesystems = (['auto', 'share', 'copy'] as const).map((mode) => ({
  source: `/srv/${mode}`,
  target: `/${mode}`,
  readOnly: false,
  mode,
}));

const modesOf = ({ filesystems: chosen }: ReturnType<typeof chooseModes>) => chosen.map(({ mode }) => mode);

it('a directory is shared where that can be had, unless a copy was asked for', () => {
  const chosen = chooseModes(filesystems, undefined);
  expect(modesOf(chosen)).toEqual(['share', 'share', 'copy']);
  expect(chosen.warnings).toEqual([]);
});

it('where it cannot, one that may be either is a copy, and that is told with the reason', () => {
  const chosen = chooseModes(filesystems, 'there is no virtiofsd');
  expect(modesOf(chosen)).toEqual(['copy', 'share', 'copy']);
  expect(chosen.warnings).toEqual([
    'the guest has a copy of /srv/auto, because there is no virtiofsd: what is written does not come back, and what changes on the host is not seen',
  ]);
});

/** Golden command lines, one argument per line. After a wanted change: `npx vitest run test/drivers/lxc -u`. */
import { describe, expect, it } from 'vitest';
import { type WardenArgsInput, wardenArgs } from '../../../drivers/lxc/launch-args.ts';
import { bootOf, place } from './container-parts.ts';

const argsOf = (changes: Partial<WardenArgsInput> = {}): string =>
  wardenArgs({
    place,
    boot: bootOf(),
    lower: 'image',
    wardenPath: '/usr/lib/roost/roost-warden',
    agentPath: '/usr/lib/roost/roost-init',
    agent: true,
    ...changes,
  })
    .map((argument) => `${argument}\n`)
    .join('');

const forms: Readonly<Record<string, Partial<WardenArgsInput>>> = {
  'with-agent': {},
  'without-agent': { agent: false },
  'on-tree': { lower: 'tree' },
  'in-a-scope': { groupArgv: ['/usr/bin/systemd-run', '--scope', '--'], guard: true },
  'with-init': { boot: bootOf({ init: ['/bin/sh', '-c', 'exec sleep 60', '--name'] }) },
};

describe('the command line of a warden', () => {
  it.each(Object.entries(forms))('%s', async (name, changes) => {
    await expect(argsOf(changes)).toMatchFileSnapshot(`../../golden/lxc/${name}.args`);
  });
});

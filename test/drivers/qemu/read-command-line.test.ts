/** Every golden command line is read back to what it was made of: made again, it is the same, argument for argument. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { launchArgs } from '../../../drivers/qemu/launch-args.ts';
import { readCommandLine } from '../../../drivers/qemu/read-command-line.ts';
import type { GuestId, InstanceId } from '../../../protocol/types.ts';

const golden = join(import.meta.dirname, '../../golden/qemu');
const stateRoot = '/var/lib/roost';
const id = '5a9c7f5a-1b2c-4d3e-8f90-a1b2c3d4e5f6' as GuestId;
const place = {
  id,
  number: 1,
  instance: 'abcde' as InstanceId,
  stateDirectory: `${stateRoot}/guests/${id}`,
  runDirectory: `/run/roost/guests/${id}`,
};

/** The part that QEMU itself is given. */
const qemuArgs = (argv: readonly string[]): readonly string[] => argv.slice(argv.lastIndexOf('--') + 1);

const again = (argv: readonly string[]): readonly string[] => {
  const { launch, ...rest } = readCommandLine(argv, 'web1', {
    place,
    linkOf: (descriptor) => `tap${descriptor}`,
    firmwareOf: (codePath) => ({ codePath, variablesTemplatePath: '/usr/share/vars.fd' }),
    sizeOf: () => 1024,
  });
  return qemuArgs(launchArgs({ launch: { ...launch, place }, launcherPath: '', stateRoot, ...rest }));
};

const lines = readdirSync(golden).map((name) => ({
  name,
  argv: qemuArgs(readFileSync(join(golden, name), 'utf8').trimEnd().split('\n')),
}));

/**
 * Arguments that a person added mean anything; what a guest runs of an image, and whose memory it has begun with, stand in
 * its record alone.
 */
const isForeign = ({ argv }: { readonly argv: readonly string[] }): boolean =>
  argv.lastIndexOf('chardev=blackbox,mode=control') !== argv.length - 1 ||
  argv.includes('-no-reboot') ||
  argv.some((argument) => argument.startsWith('memory-backend-file,'));

describe('a command line read back', () => {
  test('there are golden ones of both kinds', () => {
    expect(lines.filter(isForeign).length).toBeGreaterThan(0);
    expect(lines.length).toBeGreaterThan(10);
  });

  test.each(lines.filter((line) => !isForeign(line)))('makes $name again', ({ argv }) => {
    expect(again(argv)).toEqual(argv);
  });

  test.each(lines.filter(isForeign))('does not make $name again', ({ argv }) => {
    expect(again(argv)).not.toEqual(argv);
  });

  test.each(['-machine', '-m', '-smp', '-cpu'])('is refused without %s', (argument) => {
    const argv = lines.find((line) => !isForeign(line))?.argv ?? [];
    const at = argv.indexOf(argument);
    expect(() => again(argv.toSpliced(at, 2))).toThrow(/does not tell/);
  });
});

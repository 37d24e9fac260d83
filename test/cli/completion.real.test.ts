import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { roostProgram } from '../harness/roost-cli.ts';
import { FakeDaemon, NO_REPLY } from './fake-daemon.ts';
import { runCli } from './run-cli.ts';

let daemon: FakeDaemon;
beforeAll(async () => {
  daemon = await FakeDaemon.start({
    'query-guests': () => ({
      guests: [{ name: 'web1', state: 'running' }, { name: 'web2' }, { name: 'db' }],
      total: 3,
    }),
    'query-images': () => ({
      images: [
        { name: 'debian', version: '2', newest: true, aliases: ['stable'], kind: 'disk' },
        { name: 'debian', version: '1', newest: false, aliases: [], kind: 'disk' },
        { name: 'linux', version: '6.1', newest: true, aliases: [], kind: 'kernel' },
      ],
    }),
    'query-networks': () => ({ networks: [{ name: 'default', kind: 'nat' }] }),
  });
});
afterAll(() => daemon[Symbol.asyncDispose]());

const candidates = async (words: readonly string[]): Promise<string[]> => {
  const ran = await runCli(['__complete', '--', ...words], { env: { ROOST_SOCKET: daemon.socketPath } });
  expect(ran).toMatchObject({ code: 0, stderr: '' });
  return ran.stdout.split('\n').flatMap((line) => line.split('\t')[0] || []);
};

describe('candidates', () => {
  it.each([
    [['sta'], ['start']],
    [['re'], ['reset', 'resume', 'rename', 'recover', 'reset-state']],
    [
      ['image', ''],
      ['import', 'pull', 'build', 'show', 'ls', 'delete', 'prune', 'alias', 'unalias'],
    ],
    [['nonsense', ''], []],
    [
      ['start', ''],
      ['web1', 'web2', 'db'],
    ],
    [
      ['start', 'w'],
      ['web1', 'web2'],
    ],
    [['rm', 'web1', 'w'], ['web2']],
    [['show', 'web1', ''], []],
    [['start', '--p'], ['--paused']],
    [
      ['stop', '--force', '--'],
      ['--timeout', '--mode', '--no-wait', '--json', '--socket', '--help'],
    ],
    [
      ['create', 'x', '--restart', ''],
      ['never', 'on-failure', 'always'],
    ],
    [['create', 'x', '--restart', 'on'], ['on-failure']],
    [['create', 'x', '--restart', '=', 'a'], ['always']],
    [
      ['create', 'x', '--restart', '='],
      ['never', 'on-failure', 'always'],
    ],
    [['create', 'x', '--restart=al'], ['--restart=always']],
    [
      ['create', 'x', '-i', ''],
      ['debian', 'stable', 'debian@2', 'debian@1', 'linux'],
    ],
    [['create', 'x', '--memory', '1GiB', '--network', 'd'], ['default']],
    [['save', 'd'], ['db']],
    [
      ['save', 'db', ''],
      ['debian', 'stable', 'debian@2', 'debian@1', 'linux'],
    ],
    [['clone', 'd'], ['db']],
    [['clone', 'db', ''], []],
    [['clone', 'db', 'x', '--st'], ['--start']],
    [['create', 'x', '--memory', ''], []],
    [['create', 'x', '--from-json', ''], [':file']],
    [['image', 'import', 'debian', ''], [':file']],
    [['run', '-v', './si'], [':file']],
    [['run', '--volume=./si'], [':file']],
    [['run', '-v', './site', ':', '/w'], []],
    [['run', '-v', './site:/w'], []],
    [['run', '-v', './site', ':', '/www', 'l'], ['linux']],
    [
      ['completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [
      ['api', 'guest-st'],
      ['guest-start', 'guest-stop'],
    ],
    [['--json', 'show', 'd'], ['db']],
    [['--socket', ''], [':file']],
    [['--js'], ['--json']],
  ])('of %j are %j', async (words, expected) => {
    expect(await candidates(words)).toEqual(expected);
  });

  it('are none, silently, without a daemon and with one that does not answer', async () => {
    expect(await candidates(['--socket', '/nonexistent', 'start', ''])).toEqual([]);
    await using silent = await FakeDaemon.start({ 'query-guests': () => NO_REPLY });
    expect(await candidates(['--socket', silent.socketPath, 'start', ''])).toEqual([]);
  });
});

describe('bash', () => {
  const complete = async (directory: string, words: readonly string[]): Promise<string[]> => {
    const program = `
      PATH="$1:$PATH"; shift
      source <(roost completion bash)
      COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
      $(complete -p roost | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const env = { ...process.env, ROOST_SOCKET: daemon.socketPath };
    const args = ['--norc', '-c', program, 'bash', directory, ...words];
    const { stdout } = await promisify(execFile)('bash', args, { env });
    return stdout.split('\n').filter(Boolean);
  };

  it('completes verbs, names, values and files by the script', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'roost-cli-'));
    await symlink(roostProgram, join(directory, 'roost'));
    expect(await complete(directory, ['roost', 'sta'])).toEqual(['start']);
    expect(await complete(directory, ['roost', 'stop', 'web1', ''])).toEqual(['web2', 'db']);
    expect(await complete(directory, ['roost', 'create', 'x', '--accel', '=', 't'])).toEqual(['tcg']);
    const file = join(directory, 'roo');
    expect(await complete(directory, ['roost', 'image', 'import', 'debian', file])).toEqual([
      join(directory, 'roost'),
    ]);
    await rm(directory, { recursive: true });
  });
});

/** What a user sees: output, errors and exit codes. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { positionalDescription, verbSummary } from '../../cli/contract-texts.ts';
import { Interrupted } from '../../cli/failure.ts';
import { flagForms, flagSyntax } from '../../cli/flags.ts';
import { verbWords } from '../../cli/verb-words.ts';
import { verbs } from '../../cli/verbs.ts';
import {
  aGuest,
  endedOperation,
  FakeDaemon,
  type Handler,
  NO_REPLY,
  NOW,
  OPERATION,
  Refusal,
} from './fake-daemon.ts';
import { type Ran, type RunOptions, runCli } from './run-cli.ts';

let daemon: FakeDaemon;
beforeEach(async () => {
  daemon = await FakeDaemon.start();
});
afterEach(() => daemon[Symbol.asyncDispose]());

const roost = (line: string, options: RunOptions = {}): Promise<Ran> =>
  runCli(line.split(' '), { env: { ROOST_SOCKET: daemon.socketPath }, ...options });

const refuse =
  (wire: Refusal['wire']): Handler =>
  () => {
    throw new Refusal(wire);
  };

describe('help', () => {
  it.each([
    '',
    'create',
    'update',
    'stop',
    'ls',
    'image',
    'image import',
    'network create',
    'events',
    'completion',
  ])('of roost %s is that of the golden file', async (verb) => {
    const ran = await runCli([...verb.split(' ').filter(Boolean), '--help']);
    expect(ran).toMatchObject({ code: 0, stderr: '' });
    await expect(ran.stdout).toMatchFileSnapshot(`golden/help-${verb.replaceAll(' ', '-') || 'roost'}.txt`);
  });

  it('explains every verb, flag and positional', () => {
    const unexplained = verbs.flatMap((verb) => [
      ...(verbSummary(verb) === '' ? [verb.words] : []),
      ...flagForms(verb)
        .filter((form) => form.description === '')
        .map((form) => `${verb.words} ${flagSyntax(form)}`),
      ...verb.positionals
        .filter((positional) => positionalDescription(verb, positional) === '')
        .map((positional) => `${verb.words} ${positional.name}`),
    ]);
    expect(unexplained).toEqual([]);
  });

  it('has no verb, alias or flag twice', () => {
    const names = verbs.flatMap((verb) => [
      verb.words,
      ...(verb.aliases ?? []),
      ...verb.flags.map((flag) => `${verb.words} --${flag.name}`),
      ...verb.flags.flatMap((flag) => (flag.short === undefined ? [] : [`${verb.words} -${flag.short}`])),
    ]);
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });

  it('goes to standard error, with the exit code of a wrong usage, when no command is given', async () => {
    const ran = await runCli([]);
    expect(ran).toMatchObject({ code: 2, stdout: '' });
    expect(ran.stderr).toContain('Usage: roost');
  });
});

describe('usage errors', () => {
  it.each([
    ['strat web1', "unknown command 'strat'", 'Did you mean start?'],
    ['start', "missing required argument 'NAME'", "See 'roost start --help'."],
    ['start web1 --forse', "unknown option '--forse'", "See 'roost start --help'."],
    ['create a --memory 4G', "'4G' has an unknown unit", 'roost create --help'],
    [
      'create a --restart sometimes',
      "'sometimes' is not one of never, on-failure, always",
      'roost create --help',
    ],
    ['create a --disk sze=1', "'sze' is not one of its keys", 'roost create --help'],
    ['create a --disk size=1KiB,size=2KiB', "'size' is given twice", 'roost create --help'],
    ['create a --label x', "'x' is not of the form key=value", 'roost create --help'],
    ['create a --from-json /nonexistent', "Cannot read '/nonexistent'", ''],
    ['update a', 'Nothing to change was given', 'roost update --help'],
    ['show a b', 'too many arguments', 'roost show --help'],
    ['api query-host {', 'The argument is not JSON', ''],
    ['api query-host []', 'The argument is not a JSON object', ''],
    ['api guest-console', "'guest-console' cannot be called alone", "Use 'roost console NAME'."],
    ['logs a --process --events', 'exclude each other', ''],
  ])('roost %s: %s', async (line, desc, hint) => {
    const ran = await roost(line);
    expect(ran).toMatchObject({ code: 2, stdout: '' });
    expect(ran.stderr).toMatch(/^roost: /);
    expect(ran.stderr).toContain(desc);
    expect(ran.stderr).toContain(hint);
    expect(daemon.calls).toEqual([]);
  });
});

describe('exit codes', () => {
  it.each([
    ['FailedPrecondition', 1],
    ['InvalidArgument', 2],
    ['CommandNotFound', 2],
    ['NotFound', 3],
    ['PermissionDenied', 5],
    ['DeadlineExceeded', 124],
    ['Unavailable', 1],
  ] as const)('a refusal of class %s ends with %i, its words and its hint', async (errorClass, code) => {
    daemon.handle('query-guest', refuse({ class: errorClass, desc: 'It went wrong', hint: 'Mend it.' }));
    expect(await roost('show web1')).toEqual({
      code,
      stdout: '',
      stderr: 'roost: It went wrong\nhint: Mend it.\n',
    });
  });

  it('a failed operation fails the command, with its error', async () => {
    const error = {
      class: 'HostError',
      desc: 'QEMU ended',
      data: { stderr: 'no such\nfile\n' },
      hint: 'Look.',
    };
    daemon.handle('operation-wait', () => endedOperation({ state: 'failed', error }));
    const ran = await roost('start web1');
    expect(ran).toEqual({
      code: 1,
      stdout: '',
      stderr: 'roost: QEMU ended\n  no such\n  file\nhint: Look.\n',
    });
  });

  it('a cancelled operation fails the command', async () => {
    daemon.handle('operation-wait', () => endedOperation({ state: 'cancelled' }));
    expect(await roost('start web1')).toMatchObject({ code: 1, stderr: 'roost: Somebody cancelled it\n' });
  });

  it('of several names each is reported, and the worst decides', async () => {
    daemon.handle('guest-start', ({ guest }) => {
      if (guest === 'no') throw new Refusal({ class: 'NotFound', desc: 'There is no such guest' });
      return { operation: OPERATION, id: OPERATION };
    });
    const ran = await roost('start a no b');
    expect(ran.code).toBe(3);
    expect(ran.stdout.split('\n').sort()).toEqual(['', 'a started', 'b started']);
    expect(ran.stderr).toBe('roost: no: There is no such guest\n');
  });

  it('similar names that the daemon gives are shown, and none is invented', async () => {
    const data = { candidates: ['web1', 'web2'] };
    daemon.handle('query-guest', refuse({ class: 'NotFound', desc: 'There is no guest wbe1', data }));
    const ran = await roost('show wbe1');
    expect(ran.stderr).toBe("roost: There is no guest wbe1\nDid you mean 'web1' or 'web2'?\n");
  });

  it('hints name the verbs of roost, but for those who speak the contract', async () => {
    const schema = 'query-schema with name query-guest shows its arguments.';
    daemon.handle('query-guest', refuse({ class: 'InvalidArgument', desc: 'Wrong', hint: schema }));
    expect((await roost('show x')).stderr).toBe("roost: Wrong\nhint: 'roost show --help' shows its flags.\n");
    daemon.handle('query-host', refuse({ class: 'InvalidArgument', desc: 'Wrong', hint: schema }));
    expect((await roost('api query-host')).stderr).toBe(`roost: Wrong\nhint: ${schema}\n`);
    const hint = 'query-guests lists them, `guest-plan` shows how; first-rate words stay.';
    daemon.handle('query-guest', refuse({ class: 'NotFound', desc: 'None', hint }));
    expect((await roost('show x')).stderr).toBe(
      "roost: None\nhint: 'roost ls' lists them, 'roost plan' shows how; first-rate words stay.\n",
    );
  });

  it('the words of hints are those of the verbs', () => {
    const words = new Map<string, string[]>();
    for (const { command, words: typed } of verbs)
      if (command) words.set(command, [...(words.get(command) ?? []), typed]);
    for (const [command, typed] of Object.entries(verbWords)) expect(words.get(command)).toContain(typed);
    expect(Object.keys(verbWords)).toEqual(
      expect.arrayContaining([...words.keys()].filter((c) => c !== 'query-version')),
    );
  });

  it('issues that the error tells already are not told twice', async () => {
    const issues = [
      { path: 'a', message: 'is bad' },
      { path: 'b', message: 'is worse' },
    ];
    const desc = 'a: is bad; b: is worse';
    daemon.handle('query-guest', refuse({ class: 'InvalidArgument', desc, data: { issues } }));
    expect((await roost('show x')).stderr).toBe(`roost: ${desc}\n`);
  });

  it('several issues of an argument are listed', async () => {
    const issues = [
      { path: 'a', message: 'is bad' },
      { path: 'b', message: 'is worse' },
    ];
    daemon.handle('query-guest', refuse({ class: 'InvalidArgument', desc: 'Wrong', data: { issues } }));
    expect((await roost('show x')).stderr).toBe('roost: Wrong\n  a: is bad\n  b: is worse\n');
  });
});

describe('tables', () => {
  it('of guests cut a long reason, unless they may be wide', async () => {
    const reason = 'QEMU said a great deal about why it could not';
    const guests = [aGuest({ state: 'failed', reason })];
    daemon.handle('query-guests', () => ({ guests }));
    expect((await roost('ls')).stdout).toContain('failed (QEMU said a great deal abou…)');
    expect((await roost('ls --wide')).stdout).toContain(`failed (${reason})`);
  });

  it('of a guest name its images', async () => {
    const id = '14f53ea5-5c83-4933-a865-586e7c30d664';
    const disk = { name: 'disk0', sizeBytes: 512, readOnly: false, serial: 's' };
    daemon.handle('query-guest', () => aGuest({ disks: [{ ...disk, image: id }] }));
    daemon.handle('query-images', () => ({ images: [{ id, name: 'debian', version: '12' }] }));
    const { stdout } = await roost('show web1');
    expect(stdout).toMatch(/disk0 +512B? +debian@12 +read-write/);
    expect(stdout).not.toContain(id);
  });
});

describe('JSON', () => {
  it('is the reply of a query', async () => {
    const ran = await roost('--json show web1');
    expect(JSON.parse(ran.stdout)).toEqual(aGuest());
  });

  it('is the ended operation of a change, and a list of them for several names', async () => {
    expect(JSON.parse((await roost('start web1 --json')).stdout)).toEqual(endedOperation());
    expect(JSON.parse((await roost('start web1 web2 --json')).stdout)).toHaveLength(2);
  });

  it('is the error on standard error', async () => {
    const wire = { class: 'NotFound', desc: 'None', hint: 'Look' } as const;
    daemon.handle('query-guest', refuse(wire));
    const ran = await roost('show web1 --json');
    expect(ran).toMatchObject({ code: 3, stdout: '' });
    expect(JSON.parse(ran.stderr)).toEqual({ error: wire });
    expect(JSON.parse((await roost('show --json')).stderr)).toMatchObject({
      error: { class: 'InvalidArgument' },
    });
  });
});

describe('waiting', () => {
  it('is left out with --no-wait, which prints the operation', async () => {
    expect(await roost('start web1 --no-wait')).toEqual({ code: 0, stdout: `${OPERATION}\n`, stderr: '' });
    expect(daemon.calls.map(({ command }) => command)).toEqual(['guest-start']);
  });

  it('ends at an interrupt, which says that the operation goes on', async () => {
    const controller = new AbortController();
    daemon.handle('operation-wait', () => {
      controller.abort(new Interrupted());
      return NO_REPLY;
    });
    const ran = await roost('start web1', { signal: controller.signal });
    expect(ran).toMatchObject({ code: 130, stdout: '' });
    expect(ran.stderr).toContain('web1: the operation goes on');
    expect(ran.stderr).toContain(`roost operation wait ${OPERATION}`);
    expect(ran.stderr).toContain(`roost operation cancel ${OPERATION}`);
  });

  it('shows the step under way on a terminal, and takes the line away', async () => {
    daemon.handle('operation-wait', (_, peer) => {
      const step = {
        operation: OPERATION,
        kind: 'guest-start',
        subject: 'web1',
        state: 'running',
        step: 'launch',
      };
      peer.emit('OPERATION_CHANGED', step);
      return endedOperation();
    });
    const ran = await roost('start web1', { isTTY: true });
    expect(ran).toMatchObject({ code: 0, stdout: 'web1 started\n' });
    expect(ran.stderr).toContain('web1: launch');
    expect(ran.stderr.endsWith('\r\u001b[K')).toBe(true);
  });

  it('ends with the code of the unreachable when the daemon goes', async () => {
    daemon.handle('operation-wait', (_, peer) => {
      peer.socket.destroy();
      return NO_REPLY;
    });
    const ran = await roost('start web1');
    expect(ran).toMatchObject({ code: 4, stdout: '' });
    expect(ran.stderr).toContain('The connection to roostd was lost during operation-wait');
  });
});

describe('connecting', () => {
  it('names the socket it tried, and how to start or find the daemon', async () => {
    const ran = await runCli(['ls', '--socket', '/nonexistent/roost.sock']);
    expect(ran.code).toBe(4);
    expect(ran.stderr).toContain('there is none at /nonexistent/roost.sock');
    expect(ran.stderr).toContain('--socket or ROOST_SOCKET');
  });

  it('looks where the daemon of this user has it', async () => {
    const { stderr } = await runCli(['ls'], { uid: 7, env: { XDG_RUNTIME_DIR: '/nonexistent' } });
    expect(stderr).toContain('/nonexistent/roost/roost.sock');
  });

  it('tells a socket of something else', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'roost-cli-'));
    const path = join(directory, 'other.sock');
    const other = createServer((socket) =>
      socket.end('{"QMP":{"version":{"package":"v7"},"capabilities":[]}}\n'),
    );
    await new Promise<void>((resolve) => other.listen(path, resolve));
    const ran = await runCli(['ls', '--socket', path]);
    other.close();
    expect(ran.code).toBe(4);
    expect(ran.stderr).toContain('is not a socket of roostd: it greets as another QMP server');
    await rm(directory, { recursive: true });
  });

  it('tells a server that speaks no JSON', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'roost-cli-'));
    const path = join(directory, 'other.sock');
    const other = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end('220 smtp.example.org\r\n');
    });
    await new Promise<void>((resolve) => other.listen(path, resolve));
    const ran = await runCli(['ls', '--socket', path]);
    other.close();
    expect(ran.code).toBe(4);
    expect(ran.stderr).toContain('is not a socket of roostd');
    await rm(directory, { recursive: true });
  });

  it('tells a plain file', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'roost-cli-'));
    const path = join(directory, 'file');
    await writeFile(path, '');
    await chmod(path, 0o600);
    expect(await runCli(['ls', '--socket', path])).toMatchObject({ code: 4 });
    await rm(directory, { recursive: true });
  });
});

describe('output', () => {
  const guests = [
    aGuest(),
    aGuest({ name: 'db', state: 'paused', reason: 'io-error', stale: true, process: undefined, nics: [] }),
  ];

  it.each(['ls', 'ls --wide'])('of %s is that of the golden file', async (line) => {
    daemon.handle('query-guests', () => ({ guests, total: 2 }));
    const { stdout } = await roost(line);
    await expect(stdout).toMatchFileSnapshot(`golden/output-${line.replaceAll(' ', '')}.txt`);
  });

  it('of show is that of the golden file', async () => {
    await expect((await roost('show web1')).stdout).toMatchFileSnapshot('golden/output-show.txt');
  });

  it('of operation show is that of the golden file', async () => {
    daemon.handle('query-operations', () => ({ operations: [endedOperation()] }));
    const { stdout } = await roost(`operation show ${OPERATION}`);
    await expect(stdout).toMatchFileSnapshot('golden/output-operation.txt');
  });

  it('of ls is one table of all pages', async () => {
    daemon.handle('query-guests', ({ after }) =>
      after === undefined
        ? { guests: guests.slice(0, 1), total: 2, next: 'x' }
        : { guests: guests.slice(1), total: 2 },
    );
    const { stdout } = await roost('ls');
    expect(stdout.split('\n').map((line) => line.split(' ')[0])).toEqual(['NAME', 'web1', 'db', '']);
    expect(daemon.calls[1]?.args).toMatchObject({ after: 'x' });
  });

  it('of version says its own also without a daemon', async () => {
    const ran = await runCli(['version', '--socket', '/nonexistent']);
    expect(ran).toMatchObject({ code: 4, stdout: 'roost    0.1.0\n' });
  });

  it('of logs longer than a reply comes in parts', async () => {
    const size = 150_000;
    daemon.handle('query-guest-log', ({ offset, maxBytes }) => {
      const from = Number(offset ?? size - Number(maxBytes));
      const to = Math.min(size, from + Number(maxBytes));
      return { text: 'x'.repeat(to - from), offset: from, nextOffset: to, sizeBytes: size };
    });
    expect((await roost('logs web1 --bytes 140KB')).stdout).toHaveLength(140_000);
  });

  it('of logs --follow goes on with what comes', async () => {
    const controller = new AbortController();
    const parts = ['one ', 'two ', '', 'three'];
    let offset = 0;
    daemon.handle('query-guest-log', () => {
      const text = parts.shift() ?? '';
      offset += text.length;
      return { text, offset: offset - text.length, nextOffset: offset, sizeBytes: offset };
    });
    const ran = await roost('logs -f web1', {
      signal: controller.signal,
      onStdout: (text) => {
        if (text.endsWith('three')) controller.abort(new Interrupted());
      },
    });
    expect(ran).toEqual({ code: 130, stdout: 'one two three', stderr: '' });
  });

  it('of qmp-log is a line for each entry, and what waits for an answer', async () => {
    daemon.handle('query-guest-qmp-log', () => ({
      entries: [
        { number: 7, at: NOW, kind: 'session', text: 'launched as process 9' },
        { number: 8, at: NOW, kind: 'command', name: 'query-status', id: 1 },
        {
          number: 9,
          at: NOW,
          kind: 'reply',
          name: 'query-status',
          id: 1,
          ms: 0.4,
          text: '{"a":1',
          bytes: 4096,
        },
        {
          number: 10,
          at: NOW,
          kind: 'error',
          name: 'stop',
          id: 2,
          ms: 3,
          text: 'GenericError: \u001b[31mno',
        },
        { number: 11, at: NOW, kind: 'event', name: 'RESUME' },
        { number: 12, at: NOW, kind: 'skipped', text: '3 entries' },
      ],
      unanswered: [{ name: 'query-status', at: NOW, ageMs: 12_000 }],
    }));
    const time = new Date(NOW).toISOString();
    expect(await roost('qmp-log web1 --lines 6')).toEqual({
      code: 0,
      stdout: [
        `7  ${time}  - launched as process 9`,
        `8  ${time}  > query-status`,
        `9  ${time}  < query-status {"a":1 … (4KiB in all) (0.4 ms)`,
        `10  ${time}  ! stop GenericError: ?[31mno (3 ms)`,
        `11  ${time}  * RESUME`,
        `12  ${time}  - 3 entries are missing`,
        'query-status has not been answered for 12s',
        '',
      ].join('\n'),
      stderr: '',
    });
    expect(daemon.calls.at(-1)).toEqual({
      command: 'query-guest-qmp-log',
      args: { guest: 'web1', limit: 6 },
    });
  });

  it('of qmp-log --follow goes on behind the last entry, and says what is gone meanwhile', async () => {
    const controller = new AbortController();
    const replies = [
      { entries: [{ number: 3, at: NOW, kind: 'event', name: 'STOP' }], unanswered: [] },
      { entries: [], unanswered: [] },
      {
        entries: [{ number: 9, at: NOW, kind: 'event', name: 'RESUME' }],
        lost: { from: 4, to: 8 },
        unanswered: [],
      },
    ];
    daemon.handle('query-guest-qmp-log', () => replies.shift());
    const ran = await roost('qmp-log -f web1 --json', {
      signal: controller.signal,
      onStdout: (text) => {
        if (text.includes('RESUME')) controller.abort(new Interrupted());
      },
    });
    expect(
      ran.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toMatchObject([{ number: 3 }, { number: 9 }]);
    expect(ran).toMatchObject({ code: 130, stderr: 'Entries 4 to 8 are no longer kept.\n' });
    expect(daemon.calls.slice(-2).map(({ args }) => args)).toEqual([
      { guest: 'web1', after: 3 },
      { guest: 'web1', after: 3 },
    ]);
  });

  it('of events --follow is a line for each, from where it was asked', async () => {
    const controller = new AbortController();
    daemon.handle('events-subscribe', (_, peer) => {
      peer.emit('GUEST_EXITED', { guest: OPERATION, name: 'web1', cause: 'crashed' }, 8);
      return { lastSequence: 8 };
    });
    const ran = await roost('events --follow --since 7', {
      signal: controller.signal,
      onStdout: () => controller.abort(new Interrupted()),
    });
    const time = new Date(NOW).toISOString();
    expect(ran).toEqual({ code: 130, stdout: `8  ${time}  GUEST_EXITED  web1  cause=crashed\n`, stderr: '' });
    expect(daemon.calls[0]).toEqual({ command: 'events-subscribe', args: { since: 7 } });
  });

  it('of events --follow says how to go on when the daemon goes', async () => {
    daemon.handle('events-subscribe', (_, peer) => {
      peer.emit('GUEST_EXITED', { guest: OPERATION, name: 'web1', cause: 'crashed' }, 8);
      return { lastSequence: 8 };
    });
    let seen: () => void = () => undefined;
    const shown = new Promise<void>((resolve) => {
      seen = resolve;
    });
    const running = roost('events --follow', { onStdout: () => seen() });
    await shown;
    await daemon[Symbol.asyncDispose]();
    const ran = await running;
    expect(ran.code).toBe(4);
    expect(ran.stderr).toContain('roost events --follow --since 8');
    daemon = await FakeDaemon.start();
  });
});

import { describe, expect, test } from 'vitest';
import type { Call, Handlers } from '../../../daemon/api/call.ts';
import { createDispatch } from '../../../daemon/api/dispatch.ts';
import { commandNames, findCommand } from '../../../protocol/commands.ts';
import { type Role, roleIncludes, roles } from '../../../protocol/types.ts';

const called: string[] = [];
const handlers = Object.fromEntries(
  commandNames.map((name) => [name, (): unknown => called.push(name)]),
) as unknown as Handlers;
const dispatch = createDispatch(handlers);
const callOf = (role: Role): Call => ({
  actor: 'token:ci',
  role,
  signal: new AbortController().signal,
  session: { negotiate: () => undefined, subscribe: () => undefined, becomeStream: () => undefined },
});

describe('dispatch', () => {
  const pairs = commandNames.flatMap((name) => roles.map((role) => ({ name, role })));
  test.each(pairs)('$name for the role $role', ({ name, role }) => {
    called.splice(0);
    const ask = (): unknown =>
      dispatch.call({ execute: name, arguments: { noSuch: 1 }, id: 1 }, callOf(role));
    const allowed = roleIncludes(role, findCommand(name)?.role ?? 'admin');
    // Whoever may call it is told what is wrong with the arguments; whoever may not is told only that.
    expect(ask).toThrow(expect.objectContaining({ class: allowed ? 'InvalidArgument' : 'PermissionDenied' }));
    expect(called).toEqual([]);
  });

  test('calls the handler with the arguments and their defaults', () => {
    called.splice(0);
    dispatch.call({ execute: 'guest-start', arguments: { guest: 'web1' }, id: 1 }, callOf('operate'));
    expect(called).toEqual(['guest-start']);
  });

  test('an unknown command is not found, with the nearest name', () => {
    const ask = (execute: string) => (): unknown =>
      dispatch.call({ execute, arguments: {}, id: 1 }, callOf('admin'));
    expect(ask('guest-strat')).toThrow(
      expect.objectContaining({ class: 'CommandNotFound', hint: 'Did you mean guest-start?' }),
    );
    expect(ask('frobnicate')).toThrow(expect.objectContaining({ hint: 'query-commands lists them all.' }));
    expect(ask('__proto__')).toThrow(expect.objectContaining({ class: 'CommandNotFound' }));
  });

  test('only a wait may be run beside others', () => {
    expect(commandNames.filter((name) => dispatch.mayWait(name))).toEqual([
      'query-fsck',
      'guest-wait',
      'query-guest-addresses',
      'guest-info',
      'guest-network-get-interfaces',
      'guest-exec',
      'guest-exec-status',
      'guest-signal',
      'query-guest-processes',
      'guest-file-open',
      'guest-file-read',
      'guest-file-write',
      'guest-file-seek',
      'guest-file-close',
      'guest-fsfreeze-status',
      'operation-wait',
    ]);
    expect(dispatch.mayWait('no-such-command')).toBe(false);
  });
});

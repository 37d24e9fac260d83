import { describe, expect, test } from 'vitest';
import { commandNames, findCommand } from '../../protocol/commands.ts';
import { errorClasses, isRoostError, RoostError, toRoostError, wireError } from '../../protocol/errors.ts';
import { eventNames } from '../../protocol/events.ts';
import { guestChanges, guestSpec } from '../../protocol/guest.ts';
import { describeByName, describeContract } from '../../protocol/introspect.ts';
import { type Role, roleIncludes, roles } from '../../protocol/types.ts';

describe('every command', () => {
  test.each(commandNames)('%s is found, named by the rules and described in one line', (name) => {
    const command = findCommand(name);
    expect(command?.name).toBe(name);
    expect(name).toMatch(/^(qmp_capabilities|[a-z]+(-[a-z]+)+)$/);
    expect(command?.summary).toMatch(/^[A-Z][^\n]*[^.\n]$/);
    expect(roles).toContain(command?.role);
  });

  test.each(commandNames)('%s has a JSON Schema of its arguments and of its answer', (name) => {
    const described = describeByName(name);
    expect(described).toMatchObject({ kind: 'command', name, arguments: { type: 'object' } });
    expect(described['returns']).toHaveProperty('$schema');
    expect(JSON.parse(JSON.stringify(described))).toEqual(described);
  });

  test.each(commandNames)('%s refuses an argument it does not know', (name) => {
    const issues = findCommand(name)?.arguments.safeParse({ noSuchArgument: 1 }).error?.issues ?? [];
    expect(issues.map(({ code }) => code)).toContain('unrecognized_keys');
  });

  test('a query or a wait never needs more than reading, but for tokens, cancelling and what a guest is told', () => {
    const needing = commandNames.filter((name) => {
      const command = findCommand(name);
      return (command?.nature === 'query' || command?.nature === 'wait') && command.role !== 'read';
    });
    const inGuests = needing.filter((name) => /^guest-(exec|file|signal)/.test(name));
    expect(inGuests).toHaveLength(8);
    const others = needing.filter((name) => !inGuests.includes(name));
    expect(others.sort()).toEqual([
      'operation-cancel',
      'query-guest-cloud-init',
      'query-tokens',
      'token-create',
      'token-revoke',
    ]);
  });

  const changing = commandNames.filter((name) => findCommand(name)?.nature === 'change');
  test.each(changing)('%s changes: it takes an idempotency key and answers with its operation', (name) => {
    expect(describeByName(name)).toMatchObject({
      arguments: { properties: { idempotencyKey: { type: 'string' } } },
      returns: { required: ['operation', 'id'] },
    });
  });
});

describe('the contract described by itself', () => {
  test('lists all commands, events and error classes', () => {
    const contract = describeContract();
    expect((contract['commands'] as { name: string }[]).map(({ name }) => name)).toEqual(commandNames);
    expect(contract['events']).toEqual(eventNames);
    expect(Object.keys(contract['errors'] as object)).toEqual(Object.keys(errorClasses));
  });

  test.each(eventNames)('%s has a JSON Schema of its data', (name) => {
    expect(describeByName(name)).toMatchObject({ kind: 'event', name, data: { type: 'object' } });
  });

  test('what is not in it is not found', () => {
    expect(() => describeByName('constructor')).toThrow(expect.objectContaining({ class: 'NotFound' }));
    expect(findCommand('toString')).toBeUndefined();
  });
});

describe('errors', () => {
  test('classes are PascalCase and say what to do next', () => {
    for (const [name, meaning] of Object.entries(errorClasses)) {
      expect(name).toMatch(/^([A-Z][a-z]+)+$/);
      expect(meaning).toMatch(/: .+\.$/);
    }
  });

  test('an error of ours goes as it is; any other thrown value is a defect and still an answer', () => {
    const ours = new RoostError('NotFound', 'no');
    expect(toRoostError(ours)).toBe(ours);
    for (const thrown of [new TypeError('x'), 'text', undefined, null, { a: 1 }]) {
      const error = toRoostError(thrown);
      expect(error.class).toBe('Internal');
      expect(wireError.parse(error.toWire())).toEqual(error.toWire());
    }
    expect(isRoostError(ours)).toBe(true);
    expect(isRoostError(ours, 'Internal')).toBe(false);
    expect(isRoostError(new Error('x'))).toBe(false);
  });
});

describe('roles', () => {
  test('each includes those before it and none after', () => {
    const included = (held: Role): readonly Role[] => roles.filter((needed) => roleIncludes(held, needed));
    expect(included('read')).toEqual(['read']);
    expect(included('operate')).toEqual(['read', 'operate']);
    expect(included('admin')).toEqual(['read', 'operate', 'admin']);
  });
});

describe('the spec of a guest', () => {
  test('a name alone is enough: all else has its default', () => {
    expect(guestSpec.parse({ name: 'web1' })).toMatchObject({
      driver: 'qemu',
      machine: 'q35',
      memoryBytes: 256 * 1024 * 1024,
      cpu: { count: 1, model: 'max' },
      boot: { kind: 'disk' },
      restartPolicy: { when: 'never', delayMs: 1000, maxDelayMs: 300_000 },
      autostart: { enabled: false, order: 100, delayMs: 0 },
    });
  });

  test.each([
    ['a name that is no DNS label', { name: 'Web_1' }],
    ['memory that is no whole MiB', { name: 'a', memoryBytes: 1_000_001 }],
    [
      'a topology that is not the count',
      { name: 'a', cpu: { count: 4, topology: { sockets: 1, cores: 1, threads: 2 } } },
    ],
    ['a disk without image and size', { name: 'a', disks: [{}] }],
    ['a multicast MAC', { name: 'a', nics: [{ network: 'n', mac: '01:00:00:00:00:00' }] }],
    ['a member of tomorrow', { name: 'a', hologram: true }],
  ])('%s is refused', (_what, spec) => {
    expect(guestSpec.safeParse(spec).success).toBe(false);
  });

  test('a change has only what was given: no default comes in', () => {
    expect(guestChanges.parse({})).toEqual({});
    expect(guestChanges.parse({ restartPolicy: { when: 'always' }, cpu: { count: 2 } })).toEqual({
      restartPolicy: { when: 'always' },
      cpu: { count: 2 },
    });
  });
});

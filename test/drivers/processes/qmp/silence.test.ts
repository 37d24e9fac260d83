import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  classifySilence,
  classifyTasks,
  parseTaskState,
  type TaskState,
} from '../../../../drivers/processes/qmp/silence.ts';

/** Tasks written as `state` or `state:wchan`, separated by spaces. */
const tasks = (text: string): TaskState[] =>
  text
    .split(' ')
    .filter((word) => word !== '')
    .map((word) => {
      const [state = '', wchan = '0'] = word.split(':');
      return { state, wchan };
    });

describe('classifyTasks', () => {
  test.each([
    ['', 'dead'],
    ['Z', 'dead'],
    ['Z Z X', 'dead'],
    ['T:do_signal_stop T:do_signal_stop', 'stopped'],
    ['T t:ptrace_stop', 'stopped'],
    ['Z T T', 'stopped'],
    ['T T S', 'stopped'],
    ['S:futex_wait S:do_poll t:ptrace_stop', 'stopped'],
    ['S:do_freezer_trap S:do_freezer_trap', 'stopped'],
    ['S:get_signal S:get_signal', 'stopped'],
    ['D:__refrigerator D:__refrigerator', 'stopped'],
    ['T D:__refrigerator', 'stopped'],
    ['S S D:nfs_wait_bit_killable', 'storage'],
    ['S:do_poll S:request_wait_answer', 'storage'],
    ['T T D:blkdev_issue_flush', 'storage'],
    ['D:__refrigerator D:folio_wait_bit', 'storage'],
    ['S:do_poll R', 'busy'],
    ['Z R', 'busy'],
    ['S D:__refrigerator', 'busy'],
    ['I', 'busy'],
  ])('%s is %s', (text, expected) => {
    expect(classifyTasks(tasks(text))).toBe(expected);
  });

  const anyTasks = fc.array(
    fc.record({
      state: fc.constantFrom('R', 'S', 'D', 'T', 't', 'Z', 'X', 'I'),
      wchan: fc.constantFrom('0', '', 'do_poll', 'do_signal_stop', '__refrigerator', 'do_freezer_trap'),
    }),
  );

  test('the order of threads does not matter, and dead threads change nothing', () => {
    fc.assert(
      fc.property(anyTasks, (some) => {
        const verdict = classifyTasks(some);
        expect(classifyTasks(some.toReversed())).toBe(verdict);
        expect(classifyTasks([{ state: 'Z', wchan: '0' }, ...some])).toBe(verdict);
      }),
    );
  });

  test('one thread that could run makes a process not dead, and stopped only where another is stopped', () => {
    fc.assert(
      fc.property(anyTasks, (some) => {
        const verdict = classifyTasks([...some, { state: 'R', wchan: '0' }]);
        const isStopped = some.some(({ state }) => state === 'T' || state === 't');
        expect(isStopped ? ['stopped', 'storage'] : ['busy', 'storage']).toContain(verdict);
      }),
    );
  });
});

describe('parseTaskState', () => {
  test('reads the state behind whatever the name holds', () => {
    expect(parseTaskState('42 (qemu-system-x86) T 1 42')).toBe('T');
    fc.assert(
      fc.property(fc.string({ maxLength: 15 }), fc.constantFrom('R', 'S', 'D', 'T', 'Z'), (name, state) => {
        expect(parseTaskState(`42 (${name}) ${state} 1 42 42 0 -1`)).toBe(state);
      }),
    );
    expect(parseTaskState('42 (CPU 0/KVM) R) S (x) D 1 42')).toBe('D');
  });

  test('a line of another shape has none', () => {
    expect(parseTaskState('')).toBeUndefined();
    expect(parseTaskState('42 (qemu)')).toBeUndefined();
  });
});

describe('classifySilence', () => {
  test('this process is busy; one that can not exist is dead', async () => {
    expect(await classifySilence(process.pid)).toMatch(/^(busy|storage)$/);
    // Larger than the largest pid of any kernel.
    expect(await classifySilence(2 ** 22 + 1)).toBe('dead');
  });
});

import { expect, it } from 'vitest';
import { printHistory, printJournal } from '../../cli/print/explain.ts';
import type { OperationJournal } from '../../protocol/operation.ts';
import type { OperationId } from '../../protocol/types.ts';

const at = Date.UTC(2026, 0, 2, 3, 4, 5);
const id = '00000000-0000-7000-8000-000000000001' as OperationId;

const journal: OperationJournal = {
  id,
  kind: 'guest-start',
  subject: { kind: 'guest', id: 'g', name: 'web' },
  actor: 'unix:uid=0,pid=7',
  state: 'failed',
  arguments: { guest: 'web' },
  cancelRequested: false,
  createdAt: at,
  startedAt: at + 20,
  endedAt: at + 120,
  error: {
    class: 'HostError',
    desc: 'QEMU ended at once',
    hint: 'See its log.',
    data: { undoFailures: ['ports: nft'] },
  },
  steps: [
    {
      name: 'ports',
      state: 'undo-failed',
      startedAt: at + 20,
      endedAt: at + 60,
      error: 'nft',
      account: [
        { kind: 'tool', argv: ['nft', 'add element x'], ms: 2.5 },
        { kind: 'made', object: 'tap rtabcde10' },
        { kind: 'tool', argv: ['nft', 'delete'], ms: 1, error: 'nft: \u001b[31mno' },
      ],
    },
    {
      name: 'launch',
      state: 'failed',
      startedAt: at + 60,
      endedAt: at + 120,
      account: [
        { kind: 'process', argv: ['launcher', '--', 'qemu'], pid: 99 },
        { kind: 'monitor', program: 'QEMU', command: 'query-kvm', ms: 0.3 },
        { kind: 'monitor', program: 'roost-warden', command: 'cont', ms: 0.4 },
        { kind: 'monitor', command: 'stop', ms: 0.5 },
        { kind: 'removed', object: 'process /x.lock' },
        { kind: 'note', text: 'gave up' },
      ],
    },
    { name: 'resume', state: 'pending' },
  ],
};

it('an operation is told in plain words, without control characters of others', () => {
  expect(printJournal(journal, at).join('\n')).toBe(`\
guest-start of guest web, asked for by unix:uid=0,pid=7 at 2026-01-02 03:04:05.000Z.
It waited 20ms for its turn.
It failed after 100ms.
Error: QEMU ended at once
Hint: See its log.
Not undone: ports: nft
1. ports: could not be undone, 40ms
     because: nft
     ran nft 'add element x' (2.5 ms)
     made tap rtabcde10
     ran nft delete (1 ms): nft: ?[31mno
2. launch: failed, 60ms
     started process 99: launcher -- qemu
     told QEMU query-kvm (0.3 ms)
     told roost-warden cont (0.4 ms)
     told the monitor stop (0.5 ms)
     removed process /x.lock
     gave up
3. resume: not begun`);
});

it('a life is a table, the oldest first', () => {
  const lines = printHistory([
    {
      at,
      what: 'guest-start',
      state: 'failed',
      actor: 'policy:restart',
      detail: 'no memory',
      operation: id,
      endedAt: at + 5,
    },
    { at: at + 9, what: 'GUEST_EXITED', detail: 'killed' },
  ]);
  expect(lines).toEqual([
    'TIME                       WHAT             BY               TOOK   DETAIL      OPERATION',
    `2026-01-02 03:04:05.000Z   start (failed)   policy:restart   5ms    no memory   ${id}`,
    '2026-01-02 03:04:05.009Z   process ended    -                -      killed      -',
  ]);
});

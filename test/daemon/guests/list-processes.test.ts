import { expect, it } from 'vitest';
import { parsePs } from '../../../daemon/guests/list-processes.ts';

it('reads what ps writes, without the threads of the kernel', () => {
  const text = [
    '      1       0     0 Ss         2  9876 /sbin/init splash',
    '      2       0     0 S          0     0 [kthreadd]',
    '     15       2     0 I<         0     0 [kworker/0:0H]',
    '    811       1   100 Sl        75 20480 /usr/bin/app --name  two words',
    'nonsense',
    '',
  ].join('\n');
  expect(parsePs(text)).toEqual([
    {
      pid: 1,
      parentPid: 0,
      uid: 0,
      state: 'S',
      cpuTimeMs: 2000,
      residentBytes: 9876 * 1024,
      command: '/sbin/init splash',
    },
    {
      pid: 811,
      parentPid: 1,
      uid: 100,
      state: 'S',
      cpuTimeMs: 75_000,
      residentBytes: 20_480 * 1024,
      command: '/usr/bin/app --name  two words',
    },
  ]);
});

it('takes no more of it than anybody can want', () => {
  const line = '1 0 0 S 0 0 '.concat('x'.repeat(5_000));
  const processes = parsePs(Array.from({ length: 10_000 }, () => line).join('\n'));
  expect(processes).toHaveLength(4096);
  expect(processes[0]?.command).toHaveLength(4096);
});

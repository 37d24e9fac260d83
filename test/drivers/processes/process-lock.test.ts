import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { probeLock, takeLock, whenFree } from '../../../drivers/processes/process-lock.ts';
import { testDirectory } from '../../harness/test-directory.ts';

it('waits for a lock that is held by whoever inherited it, and for no other', async () => {
  const path = join(await testDirectory('lock'), 'process.lock');
  await whenFree(path);
  const lock = takeLock(path);
  if (lock === 'held') throw new Error('nobody else has it');
  const heir = spawn('cat', [], { stdio: ['pipe', 'ignore', 'inherit', lock] });
  closeSync(lock);
  await once(heir, 'spawn');
  expect(await probeLock(path)).toBe('alive');
  const free = whenFree(path);
  heir.stdin?.end();
  await free;
  expect(await probeLock(path)).toBe('gone');
  await whenFree(path);
});

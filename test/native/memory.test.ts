import { closeSync, ftruncateSync, openSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { createMemory, sealMemory } from '../../native/index.ts';

const memory = (): number => {
  const fd = createMemory('roost-test');
  onTestFinished(() => closeSync(fd));
  return fd;
};

it('is found by its name, opened by its descriptor, and read by whoever opens it', () => {
  const fd = memory();
  writeSync(fd, 'hello');
  expect(readlinkSync(`/proc/self/fd/${fd}`)).toMatch(/^\/memfd:roost-test/);
  const again = openSync(`/proc/self/fd/${fd}`, 'r+');
  const read = Buffer.alloc(5);
  readSync(again, read, 0, 5, 0);
  closeSync(again);
  expect(read.toString()).toBe('hello');
});

it('once sealed can neither be written nor resized, not even by its maker', () => {
  const fd = memory();
  writeSync(fd, 'hello');
  sealMemory(fd);
  sealMemory(fd);
  expect(() => writeSync(fd, 'x', 0)).toThrow('EPERM');
  expect(() => ftruncateSync(fd, 1)).toThrow('EPERM');
  expect(() => ftruncateSync(fd, 100)).toThrow('EPERM');
});

it('says what it takes', () => {
  expect(() => createMemory('a'.repeat(128))).toThrow('name');
  expect(() => sealMemory(-1)).toThrow('EBADF');
});

import { expect, test } from 'vitest';
import { UndoStack } from '../../lib/undo-stack.ts';

const within = async (body: (undo: UndoStack) => void | Promise<void>): Promise<void> => {
  await using undo = new UndoStack();
  await body(undo);
};

test('undoes in reverse when its scope is left by an error', async () => {
  const seen: number[] = [];
  const run = within((undo) => {
    for (const step of [1, 2, 3]) undo.add(() => seen.push(step));
    throw new Error('broke');
  });
  await expect(run).rejects.toThrow('broke');
  expect(seen).toEqual([3, 2, 1]);
});

test('undoes nothing after success', async () => {
  const seen: number[] = [];
  await within((undo) => {
    undo.add(() => seen.push(1));
    undo.succeed();
  });
  expect(seen).toEqual([]);
});

test('waits for each undo, does all of them even if one fails, and throws the first failure', async () => {
  const seen: number[] = [];
  const run = within((undo) => {
    undo.add(async () => {
      await Promise.resolve();
      seen.push(1);
    });
    undo.add(() => Promise.reject(new Error('second undo')));
    undo.add(() => {
      seen.push(3);
      throw new Error('third undo');
    });
  });
  await expect(run).rejects.toThrow('third undo');
  expect(seen).toEqual([3, 1]);
});

test('undoes nothing twice', async () => {
  const seen: number[] = [];
  const undo = new UndoStack();
  undo.add(() => seen.push(1));
  await undo[Symbol.asyncDispose]();
  await undo[Symbol.asyncDispose]();
  expect(seen).toEqual([1]);
});

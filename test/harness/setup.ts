/** Runs in every test file before its own code: gives it its place, and looks afterwards at what it left. */
import { afterAll, beforeAll } from 'vitest';
import { cleanUp, countHandles, type HandleCounts, waitForNoLeaks } from './leak-check.ts';
import { startWorker } from './worker.ts';

const own = startWorker();
let handlesBefore: HandleCounts = new Map();

beforeAll(() => {
  handlesBefore = countHandles();
});

// Registered first, so it runs last: hooks of a file run in the order of a stack.
afterAll(async () => {
  const left = await waitForNoLeaks(own, handlesBefore);
  await cleanUp(own);
  if (left.length > 0) throw new Error(`This test file left behind:\n  ${left.join('\n  ')}`);
});

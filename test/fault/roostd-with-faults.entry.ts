/**
 * roostd with a misfortune, for tests; never shipped, and the daemon itself knows nothing of it.
 *   ROOST_TEST_CRASH=PLACE    it kills itself at that place; `#N` is the N-th place that any operation comes to
 *   ROOST_TEST_FAIL=PLACE     the operation fails at that place, the first time it comes there
 *   ROOST_TEST_PLACES=FILE    every place is written to the file, one a line
 *   ROOST_TEST_LOWER=tree     roots of containers lie on trees, as where the kernel maps no ids of a squashfs; or on an `image`
 * A place is `kind/step/moment`, as `guest-start/launch/before`.
 */
import { appendFileSync } from 'node:fs';
import { realParts, runMain } from '../../daemon/main.ts';
import type { StepObserver } from '../../daemon/operations/steps.ts';
import { RoostError } from '../../protocol/errors.ts';

const crashAt = process.env['ROOST_TEST_CRASH'];
let failAt = process.env['ROOST_TEST_FAIL'];
const placesPath = process.env['ROOST_TEST_PLACES'];
const lower = (['image', 'tree'] as const).find((each) => each === process.env['ROOST_TEST_LOWER']);
let passed = 0;

const observeStep: StepObserver = ({ kind, step, moment }) => {
  const place = `${kind}/${step}/${moment}`;
  passed += 1;
  if (placesPath !== undefined) appendFileSync(placesPath, `${place}\n`);
  if (crashAt === place || crashAt === `#${passed}`) process.kill(process.pid, 'SIGKILL');
  if (failAt !== place) return;
  failAt = undefined;
  throw new RoostError('HostError', 'the test says no');
};

runMain(process.argv.slice(2), {
  observeStep,
  ...(lower === undefined ? {} : { parts: (context) => realParts(context, { lower }) }),
});

/**
 * roostd that kills itself at one place of one operation: `ROOST_TEST_CRASH=kind/step/moment`. A program of the tests,
 * never shipped: the daemon itself knows nothing of it.
 */
import { runMain } from '../../daemon/main.ts';

const wanted = process.env['ROOST_TEST_CRASH'] ?? '';

runMain(process.argv.slice(2), ({ kind, step, moment }) => {
  if (`${kind}/${step}/${moment}` === wanted) process.kill(process.pid, 'SIGKILL');
});

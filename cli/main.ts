/** The program `roost`: the world of this process, and its end. */
import { constants } from 'node:os';
import { Interrupted } from './failure.ts';
import type { Io } from './io.ts';
import { run } from './run.ts';

const controller = new AbortController();
const endings = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
for (const name of endings) {
  // The second one ends the process at once, as without us.
  process.once(name, () => controller.abort(new Interrupted(constants.signals[name])));
}

// A reader that has gone, as in `roost ls | head -1`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

const io: Io = {
  // Opening it costs something and may keep the process: only for those who read it.
  get stdin() {
    return process.stdin;
  },
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  uid: process.geteuid?.() ?? 0,
  now: () => Date.now(),
  signal: controller.signal,
  patienceMs: 120_000,
  greetingTimeoutMs: 10_000,
  runProgram: async (argv, signal) => (await import('./run-program.ts')).runProgram(argv, signal),
};

void run(process.argv.slice(2), io).then((code) => {
  process.exitCode = code;
});

/** A list of 200 running guests, 40 of which are stopped by a signal, beside the same list with none of them stopped. */
import { type InstanceOptions, startInstance } from './instance.ts';
import { createAll, listSampler } from './list-rows.ts';
import { type Figure, quantile, type SampleLimits, type Sampler, takeFigure } from './measure.ts';
import { importIdleKernel } from './start-rows.ts';

const RUNNING = 200;
const STOPPED = 40;
/** Lists for one percentile. */
const LISTS = 100;

const limits: SampleLimits = { warmUps: 1, samples: 12, budgetMs: 60_000 };

export const stoppedRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    await importIdleKernel(instance);
    await createAll(instance, RUNNING, 'running', true);
    const page = await instance.client.call('query-guests', { limit: RUNNING });
    const pids = page.guests.flatMap(({ process }) => (process ? [process.pid] : [])).slice(0, STOPPED);
    const list = await listSampler(instance, RUNNING);
    const peer = percentileSampler(list);
    const roost: Sampler = async () => {
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      try {
        return await peer();
      } finally {
        for (const pid of pids) process.kill(pid, 'SIGCONT');
      }
    };
    const sides = { roost, peer: { name: 'the same list with none stopped', sample: peer } };
    return [await takeFigure('list-200-stopped', 'ms', sides, limits, options)];
  } finally {
    await instance.close();
  }
};

const percentileSampler =
  (list: Sampler): Sampler =>
  async () => {
    const times: number[] = [];
    while (times.length < LISTS) times.push(await list());
    return quantile(times, 0.99);
  };

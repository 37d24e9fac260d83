/** Standstills of the event loops of daemons under test, gathered over a whole torture from what the daemons wrote. */
import { appendFileSync, readFileSync } from 'node:fs';

export interface Standstill {
  readonly work: string;
  readonly ms: number;
  readonly cpuMs: number;
}

/** Takes note of the standstills that a daemon told of, where somebody gathers them. */
export const noteStandstills = (log: string): void => {
  const path = process.env['ROOST_TORTURE_STANDSTILLS'];
  if (path === undefined) return;
  for (const line of log.split('\n')) {
    if (!line.includes('the event loop stood still')) continue;
    const { work, ms, cpuMs } = JSON.parse(line) as Standstill;
    appendFileSync(path, `${JSON.stringify({ work, ms, cpuMs })}\n`);
  }
};

/** What was gathered: for each work how often, how long and how much computing at most, the longest first. */
export const gatheredStandstills = (path: string): readonly (Standstill & { readonly count: number })[] => {
  const byWork = new Map<string, { ms: number; cpuMs: number; count: number }>();
  for (const line of readFileSync(path, 'utf8').split('\n').filter(Boolean)) {
    const { work, ms, cpuMs } = JSON.parse(line) as Standstill;
    const before = byWork.get(work) ?? { ms: 0, cpuMs: 0, count: 0 };
    byWork.set(work, {
      ms: Math.max(before.ms, ms),
      cpuMs: Math.max(before.cpuMs, cpuMs),
      count: before.count + 1,
    });
  }
  return [...byWork].map(([work, rest]) => ({ work, ...rest })).sort((a, b) => b.ms - a.ms);
};

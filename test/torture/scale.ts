/**
 * One torture has two sizes: the short form is a test like any other, the long one is what `make torture` runs. Both are
 * the same code with other numbers. What is random comes from one seed, which is printed and can be given: `SEED=…`.
 */
import { randomInt } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { Random } from './random.ts';

export const isLong = process.env['ROOST_TORTURE'] === 'long';

/** The number for the form that runs; `COUNT=…` beats both. */
export const sized = (form: { readonly short: number; readonly long: number }): number => {
  const asked = Number(process.env['COUNT']);
  if (Number.isSafeInteger(asked) && asked > 0) return asked;
  return isLong ? form.long : form.short;
};

/** Deadline of a test in milliseconds: for one that hangs, never for one that is slow. */
export const timeoutMs = isLong ? 3 * 3_600_000 : 10 * 60_000;

/** Randomness that the same `SEED` repeats. The seed is part of every report. */
export const seededRandom = (): Random => {
  const asked = Number(process.env['SEED']);
  const seed = Number.isSafeInteger(asked) && asked > 0 ? asked : randomInt(1, 2 ** 31);
  progress(`seed ${seed} (SEED=${seed} repeats the choices)`);
  return new Random(seed);
};

/** A line for whoever watches the long form; the short one is silent. */
export const progress = (line: string): void => {
  const path = process.env['ROOST_TORTURE_PROGRESS'];
  if (path !== undefined) appendFileSync(path, `  ${line}\n`);
};

/** A line of the table at the end of the long form. */
export const figure = (what: string, value: number | string): void => {
  const path = process.env['ROOST_TORTURE_FIGURES'];
  if (path !== undefined) appendFileSync(path, `${JSON.stringify({ what, value })}\n`);
};

/**
 * Units of people: sizes and durations as they are typed and shown. The wire knows only bytes and milliseconds, so
 * nothing else in the project reads these.
 */

const DECIMAL_UNITS = ['KB', 'MB', 'GB', 'TB', 'PB'] as const;
const BINARY_UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

const sizeUnits: ReadonlyMap<string, bigint> = new Map<string, bigint>([
  ['', 1n],
  ['b', 1n],
  ...DECIMAL_UNITS.map((unit, index) => [unit.toLowerCase(), 1000n ** BigInt(index + 1)] as const),
  ...BINARY_UNITS.map((unit, index) => [unit.toLowerCase(), 1024n ** BigInt(index + 1)] as const),
]);

/** A text that is no size, duration or number, with what would be. */
export class UnitError extends Error {
  override readonly name = 'UnitError';
}

/** `number × unit` exactly; undefined when it is no whole number of the smallest unit. */
const exactly = (number: string, unit: bigint): bigint | undefined => {
  const [whole = '0', fraction = ''] = number.split('.');
  const scaled = BigInt(whole + fraction) * unit;
  const divisor = 10n ** BigInt(fraction.length);
  return scaled % divisor === 0n ? scaled / divisor : undefined;
};

/**
 * Bytes of a size: `4GiB` (2^30), `4GB` (10^9), `1.5MiB`; a bare number is bytes; case does not matter. Throws
 * UnitError, also for `4G`, which means one thing here and another there.
 */
export const parseSize = (text: string): number => {
  const match = /^(\d{1,20}(?:\.\d{1,9})?) ?([a-z]*)$/i.exec(text.trim());
  if (!match) throw new UnitError(`'${text}' is not a size; write it as 512MiB, 4GiB or 4096`);
  const [, number = '', suffix = ''] = match;
  const unit = sizeUnits.get(suffix.toLowerCase());
  if (unit === undefined) {
    const letter = suffix.toUpperCase();
    const hint = /^[KMGTP]$/.test(letter)
      ? `write ${number}${letter}iB (powers of 1024) or ${number}${letter}B (powers of 1000)`
      : 'the units are KiB, MiB, GiB, TiB, PiB and KB, MB, GB, TB, PB';
    throw new UnitError(`'${text}' has an unknown unit: ${hint}`);
  }
  const bytes = exactly(number, unit);
  if (bytes === undefined) throw new UnitError(`'${text}' is not a whole number of bytes`);
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw new UnitError(`'${text}' is too large`);
  return Number(bytes);
};

const durationUnits = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000, ms: 1 } as const;
type DurationUnit = keyof typeof durationUnits;

const DURATION =
  /^(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,3})?)s)?(?:(\d{1,15})ms)?$/;

/** Milliseconds of a duration: `30s`, `1h30m`, `1.5s`, `250ms`, `0`. Throws UnitError. */
export const parseDuration = (text: string): number => {
  const trimmed = text.trim().toLowerCase();
  if (trimmed === '0') return 0;
  if (/^\d+$/.test(trimmed)) {
    throw new UnitError(`'${text}' has no unit; write ${trimmed}s, ${trimmed}m or ${trimmed}ms`);
  }
  const match = trimmed === '' ? null : DURATION.exec(trimmed);
  if (!match) throw new UnitError(`'${text}' is not a duration; write it as 30s, 2m, 1h30m or 500ms`);
  const units = Object.values(durationUnits);
  const sum = units.reduce((total, unit, index) => total + Number(match[index + 1] ?? 0) * unit, 0);
  const milliseconds = Math.round(sum);
  if (!Number.isSafeInteger(milliseconds)) throw new UnitError(`'${text}' is too long`);
  return milliseconds;
};

/** A plain integer. Throws UnitError. */
export const parseInteger = (text: string): number => {
  const value = /^-?\d{1,16}$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new UnitError(`'${text}' is not a whole number`);
  return value;
};

/** `256MiB`, `1.5GiB`, `12KiB`; at most one decimal, so not always exact. */
export const formatSize = (bytes: number): string => {
  let value = bytes;
  let unit = 'B';
  for (const next of BINARY_UNITS) {
    // What would be shown as 1024 of a unit is shown as 1 of the next.
    if (Number(value.toFixed(1)) < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${unit === 'B' ? value : Number(value.toFixed(1))}${unit}`;
};

/** `30s`, `1m30s`, `2h5m`, `250ms`; the two largest units, so not always exact. */
export const formatDuration = (milliseconds: number): string => {
  const shown: string[] = [];
  let rest = Math.round(milliseconds);
  const names = Object.keys(durationUnits) as DurationUnit[];
  for (const name of names) {
    const count = Math.floor(rest / durationUnits[name]);
    rest -= count * durationUnits[name];
    const isTail = name === 'ms' && shown.length > 0;
    if (count > 0 && !isTail) shown.push(`${count}${name}`);
    else if (shown.length > 0) break;
    if (shown.length === 2) break;
  }
  return shown.length === 0 ? '0s' : shown.join('');
};

const largestUnit = (milliseconds: number): string => {
  const names = Object.keys(durationUnits) as DurationUnit[];
  const name = names.find((unit) => milliseconds >= durationUnits[unit]) ?? 's';
  return `${Math.floor(milliseconds / durationUnits[name])}${name}`;
};

/** A moment as seen from now: `3m ago`, `just now`, `in 5s`. Both in milliseconds since the epoch. */
export const formatAge = (atMs: number, nowMs: number): string => {
  const passed = nowMs - atMs;
  if (Math.abs(passed) < 1_000) return 'just now';
  return passed > 0 ? `${largestUnit(passed)} ago` : `in ${largestUnit(-passed)}`;
};

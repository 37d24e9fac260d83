/** The names that a mistyped one may have meant. */

/** Longest name that is compared; the work grows with the square of it. */
const MAX_LENGTH = 64;
const MAX_CANDIDATES = 3;

/** Levenshtein's distance: single-character changes from one to the other. */
export const editDistance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
};

/** At most three names within a third of the length, the nearest first. */
export const nearestNames = (name: string, names: readonly string[]): string[] => {
  const asked = name.slice(0, MAX_LENGTH);
  const within = Math.max(1, Math.floor(asked.length / 3));
  return names
    .filter((candidate) => Math.abs(candidate.length - asked.length) <= within)
    .map((candidate) => ({ candidate, distance: editDistance(asked, candidate.slice(0, MAX_LENGTH)) }))
    .filter(({ distance }) => distance <= within)
    .sort((a, b) => a.distance - b.distance)
    .slice(0, MAX_CANDIDATES)
    .map(({ candidate }) => candidate);
};

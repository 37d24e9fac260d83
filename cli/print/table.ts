/**
 * Plain text for people: aligned columns without boxes, and lines of names and values. Whatever comes from a guest or
 * a file name may hold control characters; none of them reaches the terminal.
 */

/** Control characters of C0, DEL and C1, and those that turn the direction of writing. */
const UNSAFE = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

export const safe = (text: string): string => text.replace(UNSAFE, '?');

/** In code points: near enough to the cells of a terminal for names. */
const lengthOf = (text: string): number => Array.from(text).length;

const pad = (text: string, width: number): string => text + ' '.repeat(Math.max(0, width - lengthOf(text)));

/** Rows under their headings; an absent cell shows as `-`. No trailing blanks. */
export const renderTable = (
  headings: readonly string[],
  rows: readonly (readonly (string | number | undefined)[])[],
): string[] => {
  const cells = rows.map((row) =>
    headings.map((_, column) => {
      const cell = row[column];
      return cell === undefined || cell === '' ? '-' : safe(String(cell));
    }),
  );
  const lines = [headings.map((heading) => heading.toUpperCase()), ...cells];
  const widths = headings.map((_, column) => Math.max(...lines.map((line) => lengthOf(line[column] ?? ''))));
  return lines.map((line) =>
    line
      .map((cell, column) => pad(cell, widths[column] ?? 0))
      .join('   ')
      .trimEnd(),
  );
};

/** `Name:  value` lines; entries without a value are left out. */
export const renderFields = (
  fields: readonly (readonly [string, string | number | undefined])[],
): string[] => {
  const shown = fields.filter(([, value]) => value !== undefined && value !== '');
  const width = Math.max(0, ...shown.map(([name]) => lengthOf(name))) + 1;
  return shown.map(([name, value]) => `${pad(`${name}:`, width)}  ${safe(String(value))}`);
};

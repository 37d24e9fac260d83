/**
 * `roost exec NAME ls -l` without `--`: what comes behind the last word of ours is the command's own, as it is for
 * docker, podman and ssh. Pure; done before anything else looks at the words.
 */
import type { Flag, Verb } from './verb.ts';

/** Global flags with a value of their own. */
const GLOBAL_WITH_VALUE: ReadonlySet<string> = new Set(['--socket']);

const takesValue = (word: string, flags: readonly Flag[]): boolean => {
  if (word.includes('=')) return false;
  if (GLOBAL_WITH_VALUE.has(word)) return true;
  // Of several letters in one word the last may have a value behind it.
  const letter = word.startsWith('--') ? undefined : word.at(-1);
  const flag = flags.find(({ name, short }) =>
    letter === undefined ? word === `--${name}` : short === letter,
  );
  return flag?.value !== undefined || flag?.member !== undefined;
};

/** The same words with `--` before the command, where the verb has one and nobody wrote it. */
export const setCommandApart = (words: readonly string[], verb: Verb | undefined): readonly string[] => {
  const own = verb?.positionals.findIndex(({ command }) => command === true) ?? -1;
  if (verb === undefined || own < 0) return words;
  let left = own + verb.words.split(' ').length;
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? '';
    if (word === '--') return words;
    if (word.startsWith('-') && word !== '-') {
      if (takesValue(word, verb.flags)) index += 1;
      continue;
    }
    left -= 1;
    if (left > 0) continue;
    const behind = words.slice(index + 1);
    return behind.length === 0 || behind[0] === '--'
      ? words
      : [...words.slice(0, index + 1), '--', ...behind];
  }
  return words;
};

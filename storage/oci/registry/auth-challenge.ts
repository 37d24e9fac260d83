/**
 * What a server asks for when it answers 401. Pure.
 * Source: RFC 9110, 11.3 and 11.6.1; RFC 6750, 3; Docker registry, "Token Authentication Specification".
 */

export interface AuthChallenge {
  /** In lower case, as `bearer`. */
  readonly scheme: string;
  /** By lower-case name. */
  readonly parameters: ReadonlyMap<string, string>;
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const parameter = new RegExp(`^(${token})[ \\t]*=[ \\t]*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))`);
const schemeWord = new RegExp(`^(${token})(?=[ \\t,]|$)`);
const MAX_LENGTH = 16 * 1024;

const unquoted = (text: string): string => text.replace(/\\(.)/g, '$1');

/**
 * The challenges in a field WWW-Authenticate, or several of them joined by commas. What cannot be understood ends the
 * list; what was understood before stays.
 */
export const parseChallenges = (field: string): readonly AuthChallenge[] => {
  const challenges: { readonly scheme: string; readonly parameters: Map<string, string> }[] = [];
  let rest = field.slice(0, MAX_LENGTH);
  for (;;) {
    rest = rest.replace(/^[ \t,]+/, '');
    if (rest === '') return challenges;
    const found = parameter.exec(rest);
    const last = challenges.at(-1);
    if (found && last) {
      const [whole, name = '', quoted, plain = ''] = found;
      last.parameters.set(name.toLowerCase(), quoted === undefined ? plain : unquoted(quoted));
      rest = rest.slice(whole.length);
      continue;
    }
    const scheme = schemeWord.exec(rest)?.[1];
    if (scheme === undefined) return challenges;
    challenges.push({ scheme: scheme.toLowerCase(), parameters: new Map() });
    rest = rest.slice(scheme.length);
  }
};

/**
 * Finds the imports of a TypeScript file. Reads just enough of the language for that: comments, strings, templates
 * and regular expressions are told from code, and the rest is words and signs.
 */

export interface FoundImport {
  /** As written: `node:fs`, `zod`, `../lib/abort.ts`; undefined for `import(expression)`. */
  readonly specifier: string | undefined;
  readonly line: number;
  /** `import type …` or `export type … from`. */
  readonly typeOnly: boolean;
}

interface Token {
  readonly kind: 'word' | 'sign' | 'string';
  readonly text: string;
  readonly line: number;
}

/** After one of these words a slash starts a regular expression; after any other it divides. */
const wordsBeforeExpression = new Set(
  'return typeof case in of do else void delete instanceof new throw await yield'.split(' '),
);

class Tokenizer {
  readonly tokens: Token[] = [];
  readonly #source: string;
  #at = 0;
  #line = 1;

  constructor(source: string) {
    this.#source = source;
  }

  run(): readonly Token[] {
    this.#code(undefined);
    return this.tokens;
  }

  /** Reads code up to the end, or up to the `}` that closes a template's `${`. */
  #code(closing: '}' | undefined): void {
    let depth = 0;
    while (this.#at < this.#source.length) {
      const character = this.#source.charAt(this.#at);
      if (closing !== undefined && depth === 0 && character === '}') return;
      if (character === '{') depth += 1;
      if (character === '}') depth -= 1;
      this.#token(character);
    }
  }

  #token(character: string): void {
    if (this.#match(/\s+/y) !== undefined) return;
    if (this.#match(/\/\/[^\n]*|\/\*[^]*?\*\//y) !== undefined) return;
    if (character === '`') return this.#template();
    const line = this.#line;
    const string = this.#match(/'(?:\\[^]|[^'\\\n])*'|"(?:\\[^]|[^"\\\n])*"/y);
    if (string !== undefined) return this.#add('string', string.slice(1, -1), line);
    const word = this.#match(/[\p{ID_Start}_$#0-9][\p{ID_Continue}$]*/uy);
    if (word !== undefined) return this.#add('word', word, line);
    if (
      character === '/' &&
      this.#regexCanStart() &&
      this.#match(/\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y) !== undefined
    ) {
      return this.#add('sign', '/…/', line);
    }
    this.#at += 1;
    this.#add('sign', character, line);
  }

  #template(): void {
    const line = this.#line;
    this.#at += 1;
    let fixed = '';
    let computed = false;
    for (;;) {
      fixed += this.#match(/(?:\\[^]|\$(?!\{)|[^`\\$])+/y) ?? '';
      if (!this.#source.startsWith('${', this.#at)) break;
      computed = true;
      this.#at += 2;
      this.#code('}');
      this.#at += 1;
    }
    this.#at += 1;
    this.#add(computed ? 'sign' : 'string', computed ? '`…`' : fixed, line);
  }

  #regexCanStart(): boolean {
    const previous = this.tokens.at(-1);
    if (previous === undefined) return true;
    if (previous.kind === 'word') return wordsBeforeExpression.has(previous.text);
    return previous.kind === 'sign' && !/^[)\]}/`]/.test(previous.text);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const text = pattern.exec(this.#source)?.[0];
    if (text === undefined) return undefined;
    this.#at += text.length;
    this.#line += text.split('\n').length - 1;
    return text;
  }

  #add(kind: Token['kind'], text: string, line: number): void {
    this.tokens.push({ kind, text, line });
  }
}

/** Every import of a file, static and dynamic, and every `export … from` and `require`, in order. */
export function scanImports(source: string): readonly FoundImport[] {
  const tokens = new Tokenizer(source).run();
  return tokens.flatMap((token, index) => {
    if (token.kind !== 'word' || isMember(tokens, index)) return [];
    if (token.text === 'import' || token.text === 'require') {
      if (isSign(tokens[index + 1], '(')) return called(tokens, index);
      if (token.text === 'require' || isSign(tokens[index + 1], '.')) return [];
    } else if (token.text !== 'export') return [];
    return clause(tokens, index);
  });
}

function called(tokens: readonly Token[], index: number): readonly FoundImport[] {
  const line = tokens[index]?.line ?? 0;
  const argument = tokens[index + 2];
  const literal = argument?.kind === 'string' && /^[),]$/.test(tokens[index + 3]?.text ?? '');
  if (literal) return [{ specifier: argument.text, line, typeOnly: false }];
  return isMethod(tokens, index) ? [] : [{ specifier: undefined, line, typeOnly: false }];
}

/** `import(path: string): void`, `async import(path) {`: a method of that name, not an import. */
function isMethod(tokens: readonly Token[], index: number): boolean {
  let depth = 0;
  for (let at = index + 1; at < tokens.length; at += 1) {
    if (isSign(tokens[at], '(')) depth += 1;
    if (isSign(tokens[at], ')')) depth -= 1;
    if (depth > 0) continue;
    return isSign(tokens[at + 1], '{') || (isSign(tokens[at + 1], ':') && !isSign(tokens[index - 1], '?'));
  }
  return false;
}

/** `import 'x'`, `import … from 'x'`, `export … from 'x'`: names, signs of a list, `from`, then the string. */
function clause(tokens: readonly Token[], index: number): readonly FoundImport[] {
  const line = tokens[index]?.line ?? 0;
  const first = tokens[index + 1];
  if (first?.kind === 'string') {
    return tokens[index]?.text === 'import' ? [{ specifier: first.text, line, typeOnly: false }] : [];
  }
  // `import type from 'x'` imports a default named type.
  const typeOnly = first?.text === 'type' && !isWord(tokens[index + 2], 'from');
  for (let at = index + 1; at < tokens.length; at += 1) {
    const token = tokens[at];
    const next = tokens[at + 1];
    if (isWord(token, 'from') && next?.kind === 'string') return [{ specifier: next.text, line, typeOnly }];
    if (token?.kind === 'sign' && !/^[{},*]$/.test(token.text)) return [];
    if (
      token?.kind === 'word' &&
      /^(const|let|function|class|default|interface|async|abstract|declare)$/.test(token.text) &&
      at === index + 1
    )
      return [];
  }
  return [];
}

const isMember = (tokens: readonly Token[], index: number): boolean => isSign(tokens[index - 1], '.');
const isSign = (token: Token | undefined, text: string): boolean =>
  token?.kind === 'sign' && token.text === text;
const isWord = (token: Token | undefined, text: string): boolean =>
  token?.kind === 'word' && token.text === text;

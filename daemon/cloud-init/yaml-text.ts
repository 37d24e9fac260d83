/**
 * YAML as cloud-init reads it: PyYAML, so version 1.1, in which `52:54:00:12:34:56` is the number 41135085296 and `on` a
 * boolean. What is read is judged by its source, and what is written is quoted for such a reader. Pure.
 */
import {
  Document,
  isMap,
  isScalar,
  LineCounter,
  type Pair,
  parseDocument,
  Scalar,
  type Tags,
  visit,
} from 'yaml';
import { RoostError } from '../../protocol/errors.ts';

const MAX_ALIASES = 100;

/** As a key, and not in quotes, it merges maps (https://yaml.org/type/merge.html); here it is a name like any other. */
const MERGE_KEY = '<<';
const MERGE_TAG = 'tag:yaml.org,2002:merge';

const isMerge = (tag: Tags[number]): boolean =>
  typeof tag === 'string' ? tag === 'merge' : tag.tag === MERGE_TAG;

/** For a reader of YAML 1.1, long lines left whole. */
export const yamlText = (value: unknown): string => {
  // With the tag, the key would be written as what merges, whatever quotes it has.
  const customTags = (tags: Tags): Tags => tags.filter((tag) => !isMerge(tag));
  const document = new Document(value, { version: '1.1', customTags });
  visit(document, {
    Pair: (_key, { key }) => {
      if (isScalar(key) && key.value === MERGE_KEY) key.type = Scalar.QUOTE_DOUBLE;
    },
  });
  return document.toString({ lineWidth: 0 });
};

export interface YamlText {
  readonly document: Document.Parsed;
  readonly warnings: readonly string[];
}

const refuse = (what: string, why: string, line?: number): RoostError =>
  new RoostError('InvalidArgument', `The ${what} is wrong: ${why}`, {
    data: { what, ...(line === undefined ? {} : { line }) },
    hint: 'Correct it; `cloud-init schema --config-file FILE`, where cloud-init is installed, checks more of it.',
  });

const firstLine = (text: string): string => text.split('\n', 1)[0]?.replace(/:$/, '') ?? text;

/** Plain scalars that YAML 1.1 reads as something that nobody meant. */
const pitfalls = (document: Document.Parsed, what: string, lines: LineCounter): string[] => {
  const found: string[] = [];
  const at = (offset: number | undefined): string =>
    offset === undefined ? '' : `, line ${lines.linePos(offset).line}`;
  visit(document, {
    Scalar: (key, node) => {
      const source = node.source ?? '';
      if (node.type !== 'PLAIN') return;
      if (typeof node.value === 'number' && source.includes(':'))
        found.push(
          `${what}${at(node.range?.[0])}: ${source} is read as the number ${node.value}; put it in quotes`,
        );
      if (key === 'key' && typeof node.value === 'boolean')
        found.push(
          `${what}${at(node.range?.[0])}: the key ${source} is read as ${node.value}; put it in quotes`,
        );
    },
  });
  return found;
};

/**
 * One YAML document. `what` names it in errors, as `user-data`. Errors: InvalidArgument for what is no YAML 1.1, has a key
 * twice in one map, or grows too much by its aliases.
 */
export const parseYamlText = (text: string, what: string): YamlText => {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    version: '1.1',
    uniqueKeys: true,
    lineCounter: lines,
  });
  const [error] = document.errors;
  if (error) throw refuse(what, firstLine(error.message), error.linePos?.[0].line);
  try {
    document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    throw refuse(what, cause instanceof Error ? cause.message : String(cause));
  }
  const odd = document.warnings.map((warning) => `${what}: ${firstLine(warning.message)}`);
  return { document, warnings: [...odd, ...pitfalls(document, what, lines)] };
};

/** Errors: InvalidArgument when the document is no map. */
export const requireMap = ({ document }: YamlText, what: string): readonly Pair[] => {
  if (!isMap(document.contents)) throw refuse(what, 'it is no map of keys and values');
  return document.contents.items;
};

export const keyOf = (pair: Pair): string => (isScalar(pair.key) ? String(pair.key.value) : String(pair.key));

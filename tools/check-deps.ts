/**
 * Holds every import of the project to the table in `import-rules.ts`, and every package to package.json.
 * Run: `tsx tools/check-deps.ts`. Exits 1 and names file, line, import and rule for each violation.
 */
import { readdir, readFile } from 'node:fs/promises';
import { isBuiltin } from 'node:module';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ImportRule, importRules } from './import-rules.ts';
import { scanImports } from './import-scanner.ts';

export interface SourceFile {
  /** From the project's root, with forward slashes. */
  readonly path: string;
  readonly source: string;
}

export interface Violation {
  readonly path: string;
  readonly line: number;
  readonly message: string;
}

export interface Packages {
  readonly dependencies: readonly string[];
  readonly devDependencies: readonly string[];
}

type Target =
  | { readonly kind: 'node'; readonly name: string }
  | { readonly kind: 'package'; readonly name: string }
  | { readonly kind: 'file'; readonly name: string };

const globs = new Map<string, RegExp>();

/** Whether a path matches a pattern: `*` inside one folder, `**` across folders, or none. */
export function matches(pattern: string, path: string): boolean {
  let expression = globs.get(pattern);
  if (expression === undefined) {
    const escaped = pattern.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`);
    const inRegex: Readonly<Record<string, string>> = { '**/': '(?:.*/)?', '**': '.*', '*': '[^/]*' };
    const body = escaped.replaceAll(/\*\*\/|\*\*|\*/g, (stars) => inRegex[stars] ?? '');
    expression = new RegExp(`^${body}$`);
    globs.set(pattern, expression);
  }
  return expression.test(path);
}

function targetOf(path: string, specifier: string): Target {
  if (specifier.startsWith('node:')) return { kind: 'node', name: specifier };
  if (specifier.startsWith('.')) {
    return { kind: 'file', name: posix.normalize(posix.join(posix.dirname(path), specifier)) };
  }
  const parts = specifier.split('/');
  return { kind: 'package', name: parts.slice(0, specifier.startsWith('@') ? 2 : 1).join('/') };
}

function isAllowed(target: Target, patterns: readonly string[]): boolean {
  if (target.kind === 'node') return patterns.includes('node:*');
  if (target.kind === 'package') return patterns.includes(target.name) || patterns.includes('npm:*');
  return patterns.some((pattern) => !pattern.includes(':') && matches(pattern, target.name));
}

/** Packages that only check or build the project; no program of ours may need them when it runs. */
function undeclared(target: Target, room: ImportRule, packages: Packages): string | undefined {
  if (target.kind !== 'package') return undefined;
  if (packages.dependencies.includes(target.name)) return undefined;
  const forDevelopment = room.may.includes('npm:*');
  if (forDevelopment && packages.devDependencies.includes(target.name)) return undefined;
  return `package.json names no ${forDevelopment ? 'dependency' : 'run-time dependency'} ${target.name}`;
}

export function ruleFor(path: string, rules: readonly ImportRule[] = importRules): ImportRule | undefined {
  return rules.find((rule) => rule.files.some((pattern) => matches(pattern, path)));
}

function judge(
  path: string,
  specifier: string,
  typeOnly: boolean,
  rule: ImportRule,
  packages: Packages,
): string | undefined {
  if (!specifier.startsWith('node:') && isBuiltin(specifier)) return `write 'node:${specifier}'`;
  const target = targetOf(path, specifier);
  const missing = undeclared(target, rule, packages);
  if (missing !== undefined) return missing;
  if (isAllowed(target, rule.may)) return undefined;
  const types = rule.mayTypes ?? [];
  if (typeOnly && isAllowed(target, types)) return undefined;
  const typesToo = types.length > 0 ? `; types also from: ${types.join(' ')}` : '';
  return `${target.name} is not for ${rule.room}. ${rule.why}\n    Allowed: ${rule.may.join(' ')}${typesToo}`;
}

/** Every violation of the files given, in their order. */
export function checkImports(
  files: readonly SourceFile[],
  packages: Packages,
  rules: readonly ImportRule[] = importRules,
): readonly Violation[] {
  return files.flatMap(({ path, source }) => {
    const rule = ruleFor(path, rules);
    if (rule === undefined) {
      return [
        { path, line: 1, message: 'no rule covers this file: give its folder one in tools/import-rules.ts' },
      ];
    }
    return scanImports(source).flatMap(({ specifier, line, typeOnly }) => {
      const message =
        specifier === undefined ? computedImport(rule) : judge(path, specifier, typeOnly, rule, packages);
      return message === undefined ? [] : [{ path, line, message }];
    });
  });
}

function computedImport(rule: ImportRule): string | undefined {
  return rule.may.includes('npm:*')
    ? undefined
    : 'an import of a computed name cannot be checked: write it out';
}

const ignoredFolders = new Set(['node_modules', 'dist', 'build', 'coverage']);

async function sourceFiles(root: string, folder = ''): Promise<readonly SourceFile[]> {
  const entries = await readdir(join(root, folder), { withFileTypes: true });
  const found = await Promise.all(
    entries
      .filter((entry) => !ignoredFolders.has(entry.name) && !entry.name.startsWith('.'))
      .map(async (entry): Promise<readonly SourceFile[]> => {
        const path = posix.join(folder, entry.name);
        if (entry.isDirectory()) return sourceFiles(root, path);
        if (!entry.isFile() || !entry.name.endsWith('.ts')) return [];
        return [{ path, source: await readFile(join(root, path), 'utf8') }];
      }),
  );
  return found.flat();
}

async function main(): Promise<void> {
  const root = dirname(import.meta.dirname);
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as Record<
    keyof Packages,
    Record<string, string>
  >;
  const files = await sourceFiles(root);
  const violations = checkImports(files, {
    dependencies: Object.keys(manifest.dependencies),
    devDependencies: Object.keys(manifest.devDependencies),
  });
  for (const { path, line, message } of violations) console.error(`${path}:${line}: ${message}`);
  console.log(`${files.length} files, ${violations.length} forbidden imports`);
  if (violations.length > 0) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();

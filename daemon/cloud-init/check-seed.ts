/**
 * Checks what a user wants cloud-init to be told, before anything is made of it. Pure. What cloud-init could not read is
 * refused; what it would read, but hardly as it was meant, is warned of.
 */
import { isSeq } from 'yaml';
import { nearestNames } from '../../lib/nearest-names.ts';
import type { CloudInitChanges, CloudInitSpec } from '../../protocol/cloud-init.ts';
import { RoostError } from '../../protocol/errors.ts';
import { cloudConfigKeys } from './cloud-config-keys.ts';
import { knownFirstLines, type UserDataFormat, userDataFormat } from './user-data-format.ts';
import { keyOf, parseYamlText, requireMap } from './yaml-text.ts';

/** Largest texts, in bytes of UTF-8; the contract bounds their characters. */
const MAX_BYTES = { 'user-data': 256 * 1024, 'meta-data': 64 * 1024, 'network-config': 64 * 1024 } as const;
type TextName = keyof typeof MAX_BYTES;

const refuse = (what: TextName, why: string, hint: string): RoostError =>
  new RoostError('InvalidArgument', `The ${what} ${why}`, { data: { what }, hint });

const checkText = (text: string, what: TextName): void => {
  if (/\p{Surrogate}|\0/u.test(text))
    throw refuse(
      what,
      'is no text: it cannot be written as UTF-8',
      'Give plain text; unpack it first if it is compressed.',
    );
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_BYTES[what])
    throw refuse(
      what,
      `has ${bytes} bytes, more than ${MAX_BYTES[what]}`,
      'Let the guest fetch what is large, as by #include or in runcmd.',
    );
};

const checkCloudConfig = (text: string): string[] => {
  const what = 'user-data';
  const parsed = parseYamlText(text, what);
  // Nothing but the first line is a cloud-config, too.
  if (parsed.document.contents === null) return [];
  const unknown = requireMap(parsed, what)
    .map(keyOf)
    .filter((key) => !cloudConfigKeys.has(key));
  return [
    ...parsed.warnings,
    ...unknown.map((key) => {
      const [nearest] = nearestNames(key, [...cloudConfigKeys]);
      return `${what}: cloud-init knows no '${key}' and will ignore it${nearest === undefined ? '' : `; did you mean '${nearest}'?`}`;
    }),
  ];
};

const checkArchive = (text: string): string[] => {
  const { document, warnings } = parseYamlText(text, 'user-data');
  if (isSeq(document.contents)) return [...warnings];
  throw refuse('user-data', 'is no list of parts', 'A cloud-config-archive is a YAML list.');
};

const checkUserDataOf = (format: UserDataFormat, text: string): string[] => {
  switch (format) {
    case 'cloud-config':
      return checkCloudConfig(text);
    case 'cloud-config-archive':
      return checkArchive(text);
    case 'script':
      return /\r\n/.test(text) ? ['user-data: its lines end with CR LF, which a shell does not take'] : [];
    // A template is no YAML yet; the others are read by programs of their own.
    case 'jinja':
    case 'cloud-config-jsonp':
    case 'include':
    case 'cloud-boothook':
    case 'part-handler':
    case 'mime':
      return [];
  }
};

const checkUserData = (text: string): string[] => {
  checkText(text, 'user-data');
  const format = userDataFormat(text);
  if (format !== undefined) return checkUserDataOf(format, text);
  const line = (text.split('\n', 1)[0] ?? '').slice(0, 60);
  throw refuse(
    'user-data',
    `begins with ${JSON.stringify(line)}, by which cloud-init would not know what it is`,
    `The first line must be one of ${knownFirstLines.join(', ')}; for a cloud-config it is #cloud-config.`,
  );
};

const checkMetaData = (text: string): string[] => {
  checkText(text, 'meta-data');
  const parsed = parseYamlText(text, 'meta-data');
  requireMap(parsed, 'meta-data');
  return [...parsed.warnings];
};

const checkNetworkConfig = (text: string): string[] => {
  const what = 'network-config';
  checkText(text, what);
  const parsed = parseYamlText(text, what);
  requireMap(parsed, what);
  const whole = parsed.document.toJS() as Readonly<Record<string, unknown>>;
  const inner = typeof whole['network'] === 'object' && whole['network'] !== null ? whole['network'] : whole;
  const { version } = inner as { readonly version?: unknown };
  if (version !== 1 && version !== 2)
    throw refuse(what, 'has no version, or one that cloud-init does not know', 'Begin it with `version: 2`.');
  return [...parsed.warnings];
};

/** Warnings for whoever asked. Errors: InvalidArgument. */
export const checkSeed = (
  wanted: Pick<CloudInitSpec | CloudInitChanges, 'userData' | 'metaData' | 'networkConfig'>,
): string[] => {
  const { userData, metaData, networkConfig } = wanted;
  return [
    ...(typeof userData === 'string' ? checkUserData(userData) : []),
    ...(typeof metaData === 'string' ? checkMetaData(metaData) : []),
    ...(typeof networkConfig === 'string' ? checkNetworkConfig(networkConfig) : []),
  ];
};

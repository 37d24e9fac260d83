/**
 * Takes the secrets out of a seed's files before anybody is shown them. Pure. In a cloud-config the values of telling keys
 * are hidden, wherever they stand; in any other text the rest of a line that begins like one.
 */
import { isScalar, type Pair, Scalar, visit } from 'yaml';
import type { SeedFiles } from '../../protocol/cloud-init.ts';
import { userDataFormat } from './user-data-format.ts';
import { parseYamlText } from './yaml-text.ts';

const HIDDEN = '(hidden)';
/** chpasswd's list is `user:password` lines; ssh_keys are the host's private keys. */
const secretKey = /passw|secret|token|private|credential|api_?key|^(?:chpasswd|ssh_keys|validation_key)$/i;
/** These speak about secrets and are none. */
const harmlessKey = /^(?:lock_passwd|ssh_pwauth|expire|ssh_deletekeys)$/;
const secretLine = /^(.*?(?:passw|secret|token|private|credential|api_?key)[^\n=:]*[=:])[^\n]+$/gim;

const nameOf = (pair: Pair): string => (isScalar(pair.key) ? String(pair.key.value) : '');

const withoutSecretsYaml = (text: string): string => {
  const { document } = parseYamlText(text, 'user-data');
  visit(document, {
    Pair: (_key, pair) => {
      const name = nameOf(pair);
      if (!secretKey.test(name) || harmlessKey.test(name) || typeof scalarOf(pair) === 'boolean')
        return undefined;
      pair.value = new Scalar(HIDDEN);
      return visit.SKIP;
    },
  });
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
};

const scalarOf = (pair: Pair): unknown => (isScalar(pair.value) ? pair.value.value : undefined);

const withoutSecrets = (text: string): string =>
  userDataFormat(text) === 'cloud-config'
    ? withoutSecretsYaml(text)
    : text.replace(secretLine, (_line, beginning: string) => `${beginning} ${HIDDEN}`);

export const redactSeed = (files: SeedFiles): SeedFiles => ({
  ...files,
  'meta-data': withoutSecrets(files['meta-data']),
  'user-data': withoutSecrets(files['user-data']),
  ...(files['vendor-data'] === undefined ? {} : { 'vendor-data': withoutSecrets(files['vendor-data']) }),
});

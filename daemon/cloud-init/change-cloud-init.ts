/** Cloud-init settings as they are stored, and a user's changes to them: pure. */
import { createHash } from 'node:crypto';
import type { CloudInitChanges, CloudInitSpec } from '../../protocol/cloud-init.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { StoredCloudInit } from '../inventory/guest-table.ts';
import { parseYamlText } from './yaml-text.ts';

const members = [
  'hostname',
  'user',
  'sshKeys',
  'passwordHash',
  'userData',
  'metaData',
  'networkConfig',
] as const;
type Given = { readonly [M in (typeof members)[number]]?: CloudInitSpec[M] | null };

const given = (...layers: readonly Given[]): CloudInitSpec => {
  const merged: Given = Object.assign(
    {},
    ...layers.map((layer) =>
      Object.fromEntries(members.flatMap((name) => (layer[name] === undefined ? [] : [[name, layer[name]]]))),
    ),
  );
  return Object.fromEntries(
    members.flatMap((name) =>
      merged[name] === undefined || merged[name] === null ? [] : [[name, merged[name]]],
    ),
  );
};

/** `digest` tells whether a running guest was started with the same. */
export const storedCloudInit = (spec: CloudInitSpec, instance = 1): StoredCloudInit => {
  const kept = given(spec);
  const digest = createHash('sha256')
    .update(JSON.stringify([kept, instance]))
    .digest('hex');
  return { ...kept, instance, digest: digest.slice(0, 32) };
};

const refuseOwnInstanceId = ({ metaData }: CloudInitSpec): void => {
  if (metaData === undefined) return;
  const { document } = parseYamlText(metaData, 'meta-data');
  if (!document.has('instance-id')) return;
  throw new RoostError('InvalidArgument', 'The meta-data of this guest names the instance-id itself', {
    hint: 'Change the instance-id in the meta-data instead.',
  });
};

/** Members not given stay, null takes one away; null for all takes cloud-init away. Errors: InvalidArgument. */
export const changeCloudInit = (
  before: StoredCloudInit | undefined,
  changes: CloudInitChanges | null | undefined,
): StoredCloudInit | undefined => {
  if (changes === undefined) return before;
  if (changes === null) return undefined;
  const spec = given(before ?? {}, changes);
  if (changes.newInstance === true) refuseOwnInstanceId(spec);
  const instance = before?.instance ?? 1;
  return storedCloudInit(spec, changes.newInstance === true && before ? instance + 1 : instance);
};

/** For the journal, which everybody may read who may read anything: that something was given, not what. */
export const withoutCloudInitTexts = (args: {
  readonly cloudInit?: object | null | undefined;
}): Readonly<Record<string, unknown>> => {
  const { cloudInit, ...rest } = args;
  if (cloudInit === undefined || cloudInit === null) return { ...args };
  return { ...rest, cloudInit: { given: Object.keys(cloudInit) } };
};

/**
 * From a guest's settings to the files of its NoCloud seed: pure. The same settings give the same files; golden files
 * hold every form of them.
 *
 * What the settings say is the user-data, or the vendor-data where the user gave a user-data: cloud-init merges the two,
 * and where both say something the user's counts.
 */
import { parse } from 'yaml';
import type { CloudInitView, SeedFiles } from '../../protocol/cloud-init.ts';
import type { GuestId, MacAddress } from '../../protocol/types.ts';
import type { StoredCloudInit } from '../inventory/guest-table.ts';
import { yamlText } from './yaml-text.ts';

export interface SeedSubject {
  readonly id: GuestId;
  readonly name: string;
  readonly cloudInit: StoredCloudInit;
  readonly nics: readonly { readonly name: string; readonly mac: MacAddress }[];
}

type Members = Readonly<Record<string, unknown>>;

const EMPTY_CLOUD_CONFIG = '#cloud-config\n{}\n';

/** The user's own meta-data; checked when it was given. */
const ownMetaData = ({ cloudInit }: SeedSubject): Members =>
  cloudInit.metaData === undefined ? {} : (parse(cloudInit.metaData, { version: '1.1' }) as Members);

const defaultMetaData = ({ id, name, cloudInit }: SeedSubject): Members => ({
  'instance-id': cloudInit.instance === 1 ? id : `${id}-${cloudInit.instance}`,
  'local-hostname': cloudInit.hostname ?? name,
});

const metaData = (subject: SeedSubject): string => {
  const own = ownMetaData(subject);
  const missing = Object.entries(defaultMetaData(subject)).filter(([key]) => !(key in own));
  // A text that lacks nothing stays as it was written.
  if (missing.length === 0 && subject.cloudInit.metaData !== undefined) return subject.cloudInit.metaData;
  return yamlText({ ...Object.fromEntries(missing), ...own });
};

/** `user` changes the image's default user and leaves it its groups, its shell and its sudo. */
const cloudConfig = ({ cloudInit }: SeedSubject): Members => {
  const { user, sshKeys, passwordHash } = cloudInit;
  const defaultUser = {
    ...(user === undefined ? {} : { name: user }),
    // hashed_passwd and not passwd: it is also set where the user is there already.
    ...(passwordHash === undefined ? {} : { lock_passwd: false, hashed_passwd: passwordHash }),
  };
  return {
    ...(Object.keys(defaultUser).length === 0 ? {} : { user: defaultUser }),
    ...(sshKeys === undefined || sshKeys.length === 0 ? {} : { ssh_authorized_keys: sshKeys }),
  };
};

/**
 * Each NIC is known by its MAC address and gets the name that it has in Roost: also where the guest's own way of naming
 * depends on the bus, and for those renderers of cloud-init that need a name.
 */
const defaultNetworkConfig = ({ nics }: SeedSubject): string =>
  yamlText({
    version: 2,
    ethernets: Object.fromEntries(
      nics.map(({ name, mac }) => [name, { match: { macaddress: mac }, 'set-name': name, dhcp4: true }]),
    ),
  });

export const renderSeed = (subject: SeedSubject): SeedFiles => {
  const { userData, networkConfig } = subject.cloudInit;
  const config = cloudConfig(subject);
  const ours = Object.keys(config).length === 0 ? EMPTY_CLOUD_CONFIG : `#cloud-config\n${yamlText(config)}`;
  return {
    'meta-data': metaData(subject),
    'user-data': userData ?? ours,
    ...(userData === undefined || ours === EMPTY_CLOUD_CONFIG ? {} : { 'vendor-data': ours }),
    'network-config': networkConfig ?? defaultNetworkConfig(subject),
  };
};

const bytesOf = <K extends string>(key: K, text: string | undefined): { readonly [P in K]?: number } =>
  (text === undefined ? {} : { [key]: Buffer.byteLength(text) }) as { readonly [P in K]?: number };

export const cloudInitViewOf = (subject: SeedSubject): CloudInitView => {
  const { cloudInit } = subject;
  const told = { ...defaultMetaData(subject), ...ownMetaData(subject) };
  return {
    instanceId: String(told['instance-id']),
    hostname: String(told['local-hostname']),
    ...(cloudInit.user === undefined ? {} : { user: cloudInit.user }),
    sshKeys: [...(cloudInit.sshKeys ?? [])],
    hasPassword: cloudInit.passwordHash !== undefined,
    ...bytesOf('userDataBytes', cloudInit.userData),
    ...bytesOf('metaDataBytes', cloudInit.metaData),
    ...bytesOf('networkConfigBytes', cloudInit.networkConfig),
  };
};

/**
 * Credentials for a registry from a file in Docker's form (config.json), as `docker login`, `podman login` and
 * `skopeo login` write it. Pure. Source: docker-login(1), containers-auth.json(5).
 */
import { z } from 'zod';
import { RoostError } from '../../../protocol/errors.ts';
import type { RegistryCredentials } from '../../pool.ts';

const entryForm = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
});

const fileForm = z.object({
  auths: z.record(z.string(), entryForm).optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
});

const HUB_KEYS = ['https://index.docker.io/v1/', 'index.docker.io', 'docker.io', 'registry-1.docker.io'];

/** Host and path of a key, which may be a URL: what stood there before hosts were enough. */
const plainKey = (key: string): string => key.replace(/^https?:\/\//, '').replace(/\/(?:v[12]\/?)?$/, '');

/** Keys of an image, the most exact first: registry/team/app, registry/team, registry. */
const keysFor = (registry: string, repository: string): readonly string[] => {
  const parts = repository.split('/');
  const hosts = registry === 'docker.io' ? HUB_KEYS.map(plainKey) : [registry];
  return hosts.flatMap((host) => [
    ...parts.map((_, index) => [host, ...parts.slice(0, parts.length - index)].join('/')),
    host,
  ]);
};

/** Errors: InvalidArgument, without the text. */
const decoded = (entry: z.infer<typeof entryForm>): RegistryCredentials => {
  if (entry.identitytoken) return { identityToken: entry.identitytoken };
  const text = entry.auth === undefined ? '' : Buffer.from(entry.auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  const username = entry.username ?? (colon < 0 ? undefined : text.slice(0, colon));
  const password = entry.password ?? (colon < 0 ? undefined : text.slice(colon + 1));
  if (username === undefined || password === undefined)
    throw new RoostError(
      'InvalidArgument',
      'An entry of the file of credentials holds neither name nor token',
      {
        hint: 'Log in again with the tool that wrote it.',
      },
    );
  return { username, password };
};

/**
 * Those for an image, if the file has any. `path` is for messages. Errors: InvalidArgument for a file of another form;
 * Unsupported where a helper program has them.
 */
export const credentialsIn = (
  text: string,
  path: string,
  registry: string,
  repository: string,
): RegistryCredentials | undefined => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const file = fileForm.safeParse(value).data;
  if (!file)
    throw new RoostError('InvalidArgument', `${path} is no file of credentials in Docker's form`, {
      data: { path },
      hint: 'Give one that docker login, podman login or skopeo login wrote.',
    });
  const entries = new Map(Object.entries(file.auths ?? {}).map(([key, entry]) => [plainKey(key), entry]));
  const keys = keysFor(registry, repository);
  const entry = keys.map((key) => entries.get(key)).find((found) => found !== undefined);
  const isEmpty = entry === undefined || Object.values(entry).every((member) => member === undefined);
  if (!isEmpty) return decoded(entry);
  const helper = Object.entries(file.credHelpers ?? {}).find(([key]) => keys.includes(plainKey(key)))?.[1];
  const store = helper ?? (entry === undefined ? undefined : file.credsStore);
  if (store === undefined) return undefined;
  throw new RoostError(
    'Unsupported',
    `${path} leaves the credentials for ${registry} to a helper, ${store}`,
    {
      data: { path, registry, helper: store },
      hint: 'Roost runs no helpers: give name and password, or a file that holds them.',
    },
  );
};

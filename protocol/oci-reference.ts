/**
 * References to images in registries, as `debian:12` or `registry.example:5000/team/app@sha256:…`. Loads no schema.
 * Source: OCI distribution specification 1.1, "Pulling manifests"; Docker's reference grammar (distribution/reference),
 * whose short forms mean Docker Hub.
 */

export interface OciReference {
  /** Host and port, as docker.io or localhost:5000. */
  readonly registry: string;
  /** As library/debian. */
  readonly repository: string;
  /** `latest` where the reference names neither tag nor digest; absent with a digest alone. */
  readonly tag?: string;
  readonly digest?: string;
}

const DOCKER_HUB = 'docker.io';
const hubNames: ReadonlySet<string> = new Set([DOCKER_HUB, 'index.docker.io', 'registry-1.docker.io']);

/** The distribution specification's <name>. */
const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const repository = new RegExp(`^${component}(?:/${component})*$`);
const label = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?';
const host = new RegExp(`^(?:${label}(?:\\.${label})*|\\[[0-9a-fA-F:]{2,39}\\])(?::[0-9]{1,5})?$`);
const tagForm = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const digestForm = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;
const MAX_NAME_LENGTH = 255;

/** Splits off what follows the last colon, unless that belongs to a port ahead of a slash. */
const splitTag = (text: string): readonly [string, string | undefined] => {
  const colon = text.lastIndexOf(':');
  return colon < 0 || text.includes('/', colon)
    ? [text, undefined]
    : [text.slice(0, colon), text.slice(colon + 1)];
};

const splitRegistry = (name: string): readonly [string, string] => {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHost = /[.:[]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  return isHost ? [first, name.slice(slash + 1)] : [DOCKER_HUB, name];
};

/** Undefined when it is none. */
export const parseOciReference = (text: string): OciReference | undefined => {
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const [name, tag] = splitTag(at < 0 ? text : text.slice(0, at));
  const [given, path] = splitRegistry(name);
  const registry = hubNames.has(given.toLowerCase()) ? DOCKER_HUB : given.toLowerCase();
  const full = registry === DOCKER_HUB && !path.includes('/') ? `library/${path}` : path;
  const isSound =
    host.test(registry) &&
    repository.test(full) &&
    registry.length + 1 + full.length <= MAX_NAME_LENGTH &&
    (tag === undefined || tagForm.test(tag)) &&
    (digest === undefined || digestForm.test(digest));
  if (!isSound) return undefined;
  const wanted = tag ?? (digest === undefined ? 'latest' : undefined);
  return {
    registry,
    repository: full,
    ...(wanted === undefined ? {} : { tag: wanted }),
    ...(digest === undefined ? {} : { digest }),
  };
};

/** Whole and unmistakable: docker.io/library/debian:12. */
export const ociReferenceText = ({ registry, repository: path, tag, digest }: OciReference): string =>
  `${registry}/${path}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;

/** Digits of a digest that a name has where there is no tag. */
const DIGEST_DIGITS = 12;

/**
 * Name that an image gets here unless another is asked for: debian/12, ghcr.io/team/app/v1.2. It may be longer than a
 * name can be.
 */
export const imageNameOf = ({ registry, repository: path, tag, digest }: OciReference): string => {
  const short = registry === DOCKER_HUB ? path.replace(/^library\//, '') : `${registry}/${path}`;
  const version = tag ?? (digest ?? '').replace(/^[^:]*:/, '').slice(0, DIGEST_DIGITS);
  // A tag may begin with an underscore, and have capitals; a part of a name cannot.
  return `${short}/${version}`
    .toLowerCase()
    .replace(/[:[\]]+/g, '-')
    .replace(/\/_/g, '/x_');
};

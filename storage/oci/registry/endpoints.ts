/** Which servers have the images of a registry, and how they are spoken to. Pure. */
import { RoostError } from '../../../protocol/errors.ts';

export interface RegistrySettings {
  /** Host and port, as references name it. */
  readonly registry: string;
  /** URLs of servers that are asked first, in this order. */
  readonly mirrors: readonly string[];
  readonly plainHttp?: boolean | undefined;
}

export interface Endpoint {
  /** As https://registry-1.docker.io, without a slash at its end. */
  readonly base: string;
  /** Host and port by which credentials are looked up. */
  readonly registry: string;
  readonly isMirror: boolean;
}

const DOCKER_HUB = 'docker.io';
const HUB_SERVER = 'registry-1.docker.io';

const isLoopback = (registry: string): boolean => {
  const host = registry.replace(/:\d+$/, '');
  return host === 'localhost' || /^127(?:\.\d{1,3}){3}$/.test(host) || host === '[::1]';
};

const mirrorOf = (url: string): Endpoint => {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const isPlain = parsed?.protocol === 'http:';
  if (!parsed || (parsed.protocol !== 'https:' && !isPlain) || parsed.username !== '')
    throw new RoostError('InvalidArgument', `The mirror ${parsed?.host ?? ''} is no http or https URL`, {
      hint: 'Correct it in the configuration of the daemon; credentials have no place in it.',
    });
  return {
    base: `${parsed.origin}${parsed.pathname}`.replace(/\/+$/, ''),
    registry: parsed.host,
    isMirror: true,
  };
};

/**
 * Servers to ask, in order. Without TLS only where somebody said so, or on the loopback interface where nobody gave
 * certificate authorities.
 */
export const endpointsOf = (
  registry: string,
  options: {
    readonly plainHttp?: boolean | undefined;
    readonly hasAuthorities: boolean;
    readonly settings: readonly RegistrySettings[];
  },
): readonly Endpoint[] => {
  const settings = options.settings.find((each) => each.registry === registry);
  const said = options.plainHttp ?? settings?.plainHttp;
  const isPlain = said ?? (isLoopback(registry) && !options.hasAuthorities);
  const host = registry === DOCKER_HUB ? HUB_SERVER : registry;
  const own = { base: `${isPlain ? 'http' : 'https'}://${host}`, registry, isMirror: false };
  return [...(settings?.mirrors ?? []).map(mirrorOf), own];
};

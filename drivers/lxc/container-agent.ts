/** The agent in a container: our own, which a container is run by the warden as it is by the kernel in a microVM. */
import { isIP } from 'node:net';
import { z } from 'zod';
import { ExecError } from '../../lib/exec-result.ts';
import { runTool } from '../../lib/run-tool.ts';
import type { AgentInterface } from '../../protocol/agent.ts';
import { RoostError } from '../../protocol/errors.ts';
import { MicrovmClient, type MicrovmClientOptions } from '../roost-agent/microvm-client.ts';

const ADDRESSES_TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;

/** What a shell would have, before anything was read. */
const ENVIRONMENT = [
  'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  'HOME=/root',
  'LANG=C.UTF-8',
];

export interface ContainerAgentOptions
  extends Omit<MicrovmClientOptions, 'environment' | 'knowsWhetherOpen'> {
  /** Number of the container's init on the host; undefined while it has none. */
  readonly initOf: () => Promise<number | undefined>;
}

export class ContainerAgent extends MicrovmClient {
  readonly #initOf: ContainerAgentOptions['initOf'];

  constructor({ initOf, ...options }: ContainerAgentOptions) {
    super({ ...options, environment: ENVIRONMENT, knowsWhetherOpen: true });
    this.#initOf = initOf;
  }

  /** By the host's own program in the container's network: nothing that is in the container is asked. */
  override async interfaces(signal: AbortSignal): Promise<readonly AgentInterface[]> {
    const init = await this.#initOf();
    if (init === undefined)
      throw new RoostError('Unavailable', 'The container has no init at this moment', { hint: 'Try again.' });
    try {
      const { stdout } = await runTool(
        ['nsenter', `--net=/proc/${init}/ns/net`, '--', 'ip', '-json', 'address'],
        {
          signal,
          timeoutMs: ADDRESSES_TIMEOUT_MS,
          maxOutputBytes: MAX_OUTPUT_BYTES,
        },
      );
      return interfacesIn(stdout);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ExecError)) throw error;
      throw new RoostError(
        'Unavailable',
        `The addresses of the container cannot be read: ${error.stderr.trim()}`,
        {
          cause: error,
          hint: "Look at the guest's state: it may have ended.",
        },
      );
    }
  }
}

/** Of `ip -json address`; filters leave empty objects, and names are the container's own. */
const links = z.array(
  z.object({
    ifname: z.string().max(64).optional(),
    address: z.string().max(64).optional(),
    addr_info: z
      .array(
        z.object({ local: z.string().max(64).optional(), prefixlen: z.int().min(0).max(128).optional() }),
      )
      .optional(),
  }),
);

/** `ip` leaves the control characters of a name as they are; elsewhere they are blank anyway. */
const parseLinks = (text: string): z.infer<typeof links> => {
  try {
    return links.parse(JSON.parse(text.replaceAll(/\p{Cc}/gu, ' ')));
  } catch (error) {
    throw new RoostError('Unavailable', 'The addresses of the container make no sense', {
      cause: error,
      hint: 'Look in the container, by `ip address`, at what its links are called.',
    });
  }
};

/** What `ip -json address` says. Pure. Errors: Unavailable where it makes no sense. */
export const interfacesIn = (text: string): readonly AgentInterface[] =>
  parseLinks(text).flatMap(({ ifname, address, addr_info = [] }): readonly AgentInterface[] => {
    if (ifname === undefined) return [];
    const ipAddresses = addr_info.flatMap(({ local = '', prefixlen = 0 }) => {
      const version = isIP(local);
      if (version === 0) return [];
      return [
        {
          ipAddress: local,
          ipAddressType: version === 4 ? ('ipv4' as const) : ('ipv6' as const),
          prefix: prefixlen,
        },
      ];
    });
    const hardwareAddress = address === undefined || ifname === 'lo' ? {} : { hardwareAddress: address };
    return [{ name: ifname, ...hardwareAddress, ipAddresses }];
  });

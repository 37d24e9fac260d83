/** Configuration: one file, checked whole before anything is done; the command line overrides its directories. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { defaultDirectories } from '../lib/default-directories.ts';
import { RoostError } from '../protocol/errors.ts';
import { MEBIBYTE } from '../protocol/types.ts';
import { issuesOf } from '../protocol/wire.ts';
import { FIRST_CONTAINER_ID, ID_RANGES, IDS_PER_CONTAINER } from './guests/id-range.ts';

/** First uid of the range that systemd's UIDS-GIDS document leaves to nobody. */
const FIRST_GUEST_UID = 1_879_048_192;

const MAX_PORT = 65_535;

const listenAddress = z
  .string()
  .regex(
    /^(127\.0\.0\.1|\[::1\]|localhost):\d{1,5}$/,
    'must be a loopback address with a port, as 127.0.0.1:7700',
  )
  .refine(
    (text) => Number(text.slice(text.lastIndexOf(':') + 1)) <= MAX_PORT,
    `must have a port of at most ${MAX_PORT}`,
  )
  .transform((text) => {
    const colon = text.lastIndexOf(':');
    return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
  });

export const configFile = z.strictObject({
  stateDirectory: z.string().startsWith('/').optional().describe('Inventory, images, disks'),
  runDirectory: z
    .string()
    .startsWith('/')
    .optional()
    .describe('Sockets and locks; emptied by a boot of the host'),
  log: z
    .strictObject({ level: z.enum(['trace', 'debug', 'info', 'warn', 'error']).default('info') })
    .prefault({}),
  socket: z
    .strictObject({
      group: z.string().default('roost').describe('Group that may use the socket, if it exists'),
    })
    .prefault({}),
  websocket: z
    .strictObject({ listen: listenAddress.optional().describe('Off unless given; loopback only') })
    .prefault({}),
  memory: z
    .strictObject({
      reserveBytes: z
        .int()
        .nonnegative()
        .default(256 * MEBIBYTE)
        .describe('Memory kept for the host itself'),
    })
    .prefault({}),
  templates: z
    .strictObject({
      waiting: z
        .int()
        .min(0)
        .max(64)
        .default(4)
        .describe('Forks that may be made before somebody asks for them, of all templates together'),
      memoryBytes: z
        .int()
        .nonnegative()
        .optional()
        .describe("Memory of all templates together; half of the host's unless given"),
    })
    .prefault({}),
  limits: z
    .strictObject({
      starts: z
        .int()
        .min(1)
        .max(1024)
        .optional()
        .describe('Guests that start at the same time; twice the CPUs of the host unless given'),
      diskCopies: z
        .int()
        .min(1)
        .max(64)
        .default(2)
        .describe('Imports, builds and copies of disks at the same time'),
    })
    .prefault({}),
  qemu: z
    .strictObject({
      binaries: z
        .record(z.string().regex(/^[a-z0-9][a-z0-9.-]{0,62}$/), z.string().startsWith('/'))
        .default({ default: '/usr/bin/qemu-system-x86_64' })
        .describe('QEMU binaries by name; guests name the one they use'),
      virtiofsd: z
        .string()
        .startsWith('/')
        .default('/usr/lib/qemu/virtiofsd')
        .describe("QEMU's virtiofsd, which serves directories of the host"),
    })
    .prefault({}),
  registries: z
    .array(
      z.strictObject({
        registry: z
          .string()
          .regex(/^[a-z0-9.-]+(:\d{1,5})?$/, 'must be a host with or without a port, as docker.io')
          .describe('As references to images name it'),
        mirrors: z
          .array(z.url({ protocol: /^https?$/ }).max(1024))
          .default([])
          .describe('Asked for its images first, in this order'),
        plainHttp: z
          .boolean()
          .optional()
          .describe('Spoken to without TLS; unless said, only on the loopback interface'),
      }),
    )
    .default([])
    .describe('Registries of OCI images that are not simply asked by their name'),
  events: z
    .strictObject({
      keepBytes: z
        .int()
        .min(MEBIBYTE)
        .default(64 * MEBIBYTE)
        .describe('Size of the events kept; the oldest go first'),
      keepMs: z
        .int()
        .min(60_000)
        .default(30 * 86_400_000)
        .describe('Age of the events kept, in milliseconds'),
    })
    .prefault({}),
  hostShutdown: z
    .strictObject({
      timeoutMs: z
        .int()
        .min(0)
        .max(600_000)
        .default(120_000)
        .describe('For all guests together when the host stops; whoever is left is ended then'),
    })
    .prefault({}),
  guests: z
    .strictObject({
      firstUid: z
        .int()
        .min(1000)
        .default(FIRST_GUEST_UID)
        .describe('First uid of the range guests run under'),
    })
    .prefault({}),
  containers: z
    .strictObject({
      firstId: z
        .int()
        .min(IDS_PER_CONTAINER)
        .max(2 ** 32 - 1 - ID_RANGES * IDS_PER_CONTAINER)
        .default(FIRST_CONTAINER_ID)
        .describe('First uid and gid of those that containers have, 65536 each'),
    })
    .prefault({}),
});
export type ConfigFile = z.output<typeof configFile>;

export interface Config extends Omit<ConfigFile, 'stateDirectory' | 'runDirectory'> {
  readonly stateDirectory: string;
  readonly runDirectory: string;
}

const invalid = (path: string, why: string, data: Record<string, string> = {}): RoostError =>
  new RoostError('InvalidArgument', `${path}: ${why}`, {
    data: { path, ...data },
    hint: 'Correct the file; docs/configuration.md describes it.',
  });

/** The file's content, checked. An absent file is an empty one unless it was named. */
export const readConfigFile = (path: string, named: boolean): ConfigFile => {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (!named && error instanceof Error && 'code' in error && error.code === 'ENOENT')
      return configFile.parse({});
    throw invalid(path, `cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  let value: unknown;
  try {
    value = parseYaml(text) ?? {};
  } catch (error) {
    throw invalid(path, `is not YAML: ${error instanceof Error ? error.message.trim() : String(error)}`);
  }
  const parsed = configFile.safeParse(value);
  if (parsed.success) return parsed.data;
  throw invalid(
    path,
    issuesOf(parsed.error)
      .map((issue) => `${issue.path || 'file'}: ${issue.message}`)
      .join('; '),
  );
};

export const usage = `usage: roostd [--config FILE] [--state-dir DIR] [--run-dir DIR]
              [--check-config | --recover [--dry-run] [--json]]

  --config FILE    configuration (YAML); as root /etc/roost/roostd.yaml unless given
  --state-dir DIR  inventory, images and disks; as root /var/lib/roost unless given
  --run-dir DIR    sockets and locks; as root /run/roost unless given; the socket is DIR/roost.sock
  --check-config   say what is wrong with the configuration, or what it lacks on this host, and do nothing else
  --recover        rebuild an inventory that is lost or damaged, and end; 'roost recover' does the same
  --dry-run        with --recover: only say what would be made
  --json           with --recover: say it in JSON
  --version        print the version
  --help           print this
`;

export type CommandLine =
  | { readonly kind: 'run'; readonly config: Config }
  | { readonly kind: 'check'; readonly config: Config; readonly path: string }
  | {
      readonly kind: 'recover';
      readonly config: Config;
      readonly dryRun: boolean;
      readonly json: boolean;
    }
  | { readonly kind: 'help' }
  | { readonly kind: 'version' };

/** Errors: InvalidArgument for unknown options and for a file that is wrong. */
export const parseCommandLine = (
  argv: readonly string[],
  host: { readonly uid: number; readonly env: NodeJS.ProcessEnv },
): CommandLine => {
  const options = {
    config: { type: 'string' },
    'state-dir': { type: 'string' },
    'run-dir': { type: 'string' },
    'check-config': { type: 'boolean' },
    recover: { type: 'boolean' },
    'dry-run': { type: 'boolean' },
    json: { type: 'boolean' },
    version: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  } as const;
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];
  try {
    ({ values } = parseArgs({ args: [...argv], options }));
  } catch (error) {
    throw new RoostError('InvalidArgument', error instanceof Error ? error.message : String(error), {
      hint: 'See roostd --help.',
    });
  }
  if (values.help) return { kind: 'help' };
  if (values.version) return { kind: 'version' };
  const defaults = defaultDirectories(host);
  const path = resolve(values.config ?? defaults.configFile);
  const file = readConfigFile(path, values.config !== undefined);
  const config: Config = {
    ...file,
    stateDirectory: resolve(values['state-dir'] ?? file.stateDirectory ?? defaults.stateDirectory),
    runDirectory: resolve(values['run-dir'] ?? file.runDirectory ?? defaults.runDirectory),
  };
  if (values['check-config']) return { kind: 'check', config, path };
  if (values.recover)
    return { kind: 'recover', config, dryRun: values['dry-run'] ?? false, json: values.json ?? false };
  if (values['dry-run'] || values.json)
    throw new RoostError('InvalidArgument', '--dry-run and --json are for --recover alone', {
      hint: 'See roostd --help.',
    });
  return { kind: 'run', config };
};

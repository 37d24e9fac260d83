/**
 * What `create` and `update` need beyond a plain mapping of flags: a spec from a file, disks and NICs from short flags,
 * and for an update the current values of the groups that are sent whole.
 */
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { usageFailure } from './failure.ts';
import { parseForward } from './forward.ts';
import type { Io } from './io.ts';
import { UnitError } from './units.ts';
import type { Arguments, Invocation, Prepare } from './verb.ts';

const isObject = (value: unknown): value is Arguments =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** A JSON object from a file, or from standard input for `-`. Throws CliFailure. */
export const readJsonObject = async (path: string, io: Io): Promise<Arguments> => {
  let content: string;
  try {
    content = path === '-' ? await text(io.stdin) : await readFile(path, 'utf8');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw usageFailure(`Cannot read '${path}': ${why}`);
  }
  return parseJsonObject(content, path === '-' ? 'Standard input' : `'${path}'`);
};

/** Throws CliFailure. */
export const parseJsonObject = (content: string, what: string): Arguments => {
  try {
    const value: unknown = JSON.parse(content);
    if (isObject(value)) return value;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw usageFailure(`${what} is not JSON: ${why}`);
  }
  throw usageFailure(`${what} is not a JSON object`, 'Write it as {"member": value, …}.');
};

/** Objects are merged member by member, all else is replaced. */
const merged = (below: Arguments, above: Arguments): Arguments => {
  const result: Record<string, unknown> = { ...below };
  for (const [key, value] of Object.entries(above)) {
    const old = result[key];
    result[key] = isObject(old) && isObject(value) ? merged(old, value) : value;
  }
  return result;
};

/** Members of a boot that only a container's has. */
const ofRoot = ['image', 'init', 'nesting', 'keepCapabilities', 'dropCapabilities'] as const;
const isOfRoot = (boot: Arguments): boolean => ofRoot.some((member) => boot[member] !== undefined);

/** What a boot is of, by what is said of it; a root is that of a container. */
const withBootKind = (args: Arguments): Arguments => {
  const boot = args['boot'];
  if (!isObject(boot) || boot['kind'] !== undefined) return args;
  if (!isOfRoot(boot)) return { ...args, boot: { kind: 'kernel', ...boot } };
  const driver = boot['image'] === undefined ? {} : { driver: 'lxc' };
  return { ...driver, ...args, boot: { kind: 'root', ...boot } };
};

/** Throws CliFailure. */
const withForwards = (nics: readonly unknown[], given: readonly unknown[]): readonly unknown[] => {
  if (given.length === 0) return nics;
  const [first, ...others] = nics;
  if (!isObject(first))
    throw usageFailure(
      '--forward needs a NIC',
      'Give a network of kind nat or user with --network or --nic.',
    );
  try {
    return [{ ...first, forwards: given.map((text) => parseForward(String(text))) }, ...others];
  } catch (error) {
    if (error instanceof UnitError) throw usageFailure(error.message);
    throw error;
  }
};

/** `--image` is the first disk, `--network` a NIC without more said. */
const devices = (invocation: Invocation, args: Arguments): Arguments => {
  const image = invocation.flags['image'];
  const networks = listOf(invocation.flags['network']);
  const disks = [...(image === undefined ? [] : [{ image }]), ...listOf(args['disks'])];
  const plain = [...networks.map((network) => ({ network })), ...listOf(args['nics'])];
  const nics = withForwards(plain, listOf(invocation.flags['forward']));
  return {
    ...args,
    ...(disks.length > 0 ? { disks } : {}),
    ...(nics.length > 0 ? { nics } : {}),
  };
};

/** Flags about cloud-init that fill no argument by themselves. */
const cloudInitFlags = [
  'cloud-init',
  'ssh-key',
  'password',
  'user-data',
  'meta-data',
  'network-config',
] as const;

const withCloudInit: Prepare = async (args, invocation, context) => {
  if (!cloudInitFlags.some((flag) => invocation.flags[flag] !== undefined)) return args;
  const { cloudInitInput } = await import('./cloud-init-input.ts');
  const filled = args['cloudInit'] as Arguments | undefined;
  return { ...args, cloudInit: await cloudInitInput(filled, invocation, context) };
};

export const prepareCreate: Prepare = async (args, invocation, context) => {
  const path = invocation.flags['from-json'];
  const fromFlags = withBootKind(devices(invocation, await withCloudInit(args, invocation, context)));
  if (typeof path !== 'string') return fromFlags;
  return merged(await readJsonObject(path, context.io), fromFlags);
};

/** Groups of settings that guest-update replaces whole, so that one flag of them needs the others as they are. */
const groups = ['cpu', 'boot', 'qemu', 'autostart', 'restartPolicy', 'labels'] as const;

/** A limit that is negated is taken away. */
const withLimits = (args: Arguments): Arguments => {
  const limits = args['limits'];
  if (!isObject(limits)) return args;
  const given = Object.entries(limits).map(([name, limit]) => [name, limit === false ? null : limit]);
  return { ...args, limits: Object.fromEntries(given) };
};

const withoutLabels = (args: Arguments, removed: readonly unknown[]): Arguments => {
  if (removed.length === 0 || !isObject(args['labels'])) return args;
  const labels = Object.entries(args['labels']).filter(([key]) => !removed.includes(key));
  return { ...args, labels: Object.fromEntries(labels) };
};

const mergedBoot = (current: unknown, given: Arguments): Arguments => {
  const kind = isOfRoot(given) ? 'root' : 'kernel';
  if (kind === 'root' && !(isObject(current) && current['kind'] === 'root'))
    throw usageFailure(
      'The guest is no container',
      '--init, --nesting, --cap-add and --cap-drop are for containers; one is made by: roost create NAME --root IMAGE',
    );
  // Kernel settings on top of a disk boot start afresh.
  const old = isObject(current) && current['kind'] === kind ? current : {};
  return { ...old, kind, ...given };
};

export const prepareUpdate: Prepare = async (args, invocation, context) => {
  const path = invocation.flags['from-json'];
  const removed = listOf(invocation.flags['unlabel']);
  const given = withLimits(await withCloudInit(args, invocation, context));
  const fromFlags: Arguments = removed.length > 0 ? { ...given, labels: given['labels'] ?? {} } : given;
  const touched = groups.filter((group) => isObject(fromFlags[group]));
  let result = fromFlags;
  if (touched.length > 0) {
    const client = await context.client();
    const guest = (await client.callAny(
      'query-guest',
      { guest: args['guest'] },
      { signal: context.signal },
    )) as Arguments;
    for (const group of touched) {
      const changes = fromFlags[group] as Arguments;
      const current = guest[group];
      const whole =
        group === 'boot'
          ? mergedBoot(current, changes)
          : { ...(isObject(current) ? current : {}), ...changes };
      result = { ...result, [group]: whole };
    }
    result = withoutLabels(result, removed);
  }
  if (typeof path === 'string') result = merged(await readJsonObject(path, context.io), result);
  if (Object.keys(result).length < 2) {
    throw usageFailure('Nothing to change was given', "See 'roost update --help' for what can be.");
  }
  return result;
};

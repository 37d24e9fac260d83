/**
 * What a QEMU binary can do, asked of the binary itself over QMP and never guessed from its version. One throwaway
 * process without a machine answers everything; the answers are kept as long as the binary's file stays the same.
 */
import { stat } from 'node:fs/promises';
import { z } from 'zod';
import { waitOrAbort } from '../../lib/abort.ts';
import { ExecError } from '../../lib/exec-result.ts';
import { JsonValueReader } from '../../lib/json-values.ts';
import { runTool } from '../../lib/run-tool.ts';
import { RoostError } from '../../protocol/errors.ts';
import type { MachineFamily } from '../../protocol/guest.ts';
import { lastLine } from '../processes/guest-logs.ts';
import { qmpReturns } from '../processes/qmp/qmp-commands.ts';
import { qmpGreetingSchema } from '../processes/qmp/qmp-types.ts';
import { familyOfType } from './machine.ts';

/** Keeps facts over restarts of the daemon. */
export interface FactsCache {
  get(key: string): unknown;
  set(key: string, facts: unknown): void;
}

const binaryFacts = z.object({
  version: z.string(),
  machines: z
    .array(z.object({ name: z.string(), alias: z.string().optional(), cpuMax: z.number() }))
    .describe('Those that Roost drives, newest first'),
  cpuModels: z.array(z.object({ name: z.string(), needsKvm: z.boolean() })),
});
export type BinaryFacts = Readonly<z.infer<typeof binaryFacts>>;

/** Part of the cache's keys: grows when the form of the facts changes. */
const FACTS_VERSION = 1;
const QUESTIONS_TIMEOUT_MS = 30_000;
const questions = ['query-machines', 'query-cpu-definitions'] as const;

export class Capabilities {
  readonly #binaries: Readonly<Record<string, string>>;
  readonly #cache: FactsCache;
  /** Fresh answers by key, also while they are being asked for. */
  readonly #known = new Map<string, Promise<BinaryFacts>>();

  constructor(binaries: Readonly<Record<string, string>>, cache: FactsCache) {
    this.#binaries = binaries;
    this.#cache = cache;
  }

  get names(): readonly string[] {
    return Object.keys(this.#binaries);
  }

  /** Path of a binary by its name in the configuration. Errors: Unsupported for a name that is not there. */
  pathOf(name: string): string {
    const path = Object.hasOwn(this.#binaries, name) ? this.#binaries[name] : undefined;
    if (path !== undefined) return path;
    throw new RoostError('Unsupported', `There is no QEMU binary called ${name}`, {
      data: { binary: name, known: [...this.names] },
      hint: `Use one of: ${this.names.join(', ')}; or add it to qemu.binaries in the configuration.`,
    });
  }

  /** Errors: Unsupported when the binary is missing or does not answer. */
  async factsOf(name: string, signal: AbortSignal): Promise<BinaryFacts> {
    const path = this.pathOf(name);
    const key = await cacheKey(path, name);
    const stored = binaryFacts.safeParse(this.#cache.get(key));
    if (stored.success) return stored.data;
    let answer = this.#known.get(key);
    if (!answer) {
      answer = this.#ask(path, name, key);
      this.#known.set(key, answer);
    }
    return await waitOrAbort(answer, signal);
  }

  /** Shared by all who want to know, so nobody's signal ends it; it has a deadline of its own. */
  async #ask(path: string, name: string, key: string): Promise<BinaryFacts> {
    try {
      const facts = await askBinary(path, name);
      this.#cache.set(key, facts);
      return facts;
    } finally {
      // From here on the cache knows; a failure is asked for again.
      this.#known.delete(key);
    }
  }
}

/** The versioned machine type that a spec means. Errors: Unsupported when the binary does not have it. */
export const resolveMachine = (
  facts: BinaryFacts,
  wanted: string,
): { readonly type: string; readonly family: MachineFamily; readonly cpuMax: number } => {
  const family = familyOfType(wanted);
  const machine =
    facts.machines.find(({ name }) => name === wanted) ??
    facts.machines.find(({ alias }) => alias === wanted) ??
    facts.machines.find(({ name }) => wanted === family && familyOfType(name) === family);
  if (machine && family !== undefined) return { type: machine.name, family, cpuMax: machine.cpuMax };
  const names = facts.machines.map(({ name }) => name);
  throw new RoostError('Unsupported', `QEMU ${facts.version} has no machine ${wanted} that Roost can run`, {
    data: { machine: wanted, known: names },
    hint: `Use q35, pc or microvm, or one of: ${names.slice(0, 8).join(', ')} (all by query-host).`,
  });
};

/** A CPU model may be followed by features, as in `max,-avx2`. Errors: Unsupported. */
export const checkCpuModel = (facts: BinaryFacts, model: string, accel: 'kvm' | 'tcg', why: string): void => {
  const name = model.split(',')[0] ?? '';
  const known = facts.cpuModels.find((candidate) => candidate.name === name);
  if (!known) {
    throw new RoostError('Unsupported', `QEMU ${facts.version} has no CPU model ${name}`, {
      data: { model: name, known: facts.cpuModels.map((candidate) => candidate.name).toSorted() },
      hint: 'Use max, or a model that `qemu-system-x86_64 -cpu help` lists.',
    });
  }
  if (!known.needsKvm || accel === 'kvm') return;
  throw new RoostError(
    'Unsupported',
    `CPU model ${name} needs KVM, and the guest would run without it: ${why}`,
    {
      data: { model: name, accel },
      hint: 'Use the model max.',
    },
  );
};

async function cacheKey(path: string, name: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return `qemu ${FACTS_VERSION} ${path} ${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  } catch (error) {
    throw new RoostError('Unsupported', `QEMU binary ${name} is not there: ${path}`, {
      cause: error,
      data: { binary: name, path },
      hint: 'Install it (Debian: qemu-system-x86), or correct qemu.binaries in the configuration.',
    });
  }
}

async function askBinary(path: string, name: string): Promise<BinaryFacts> {
  const commands = ['qmp_capabilities', ...questions, 'quit'];
  try {
    const { stdout } = await runTool(
      [
        path,
        ...'-machine none -accel tcg -nodefaults -no-user-config -display none -S -qmp stdio'.split(' '),
      ],
      {
        signal: new AbortController().signal,
        cwd: '/',
        timeoutMs: QUESTIONS_TIMEOUT_MS,
        input: commands.map((execute) => JSON.stringify({ execute, id: execute })).join('\n'),
      },
    );
    return parseAnswers(stdout);
  } catch (error) {
    const said = error instanceof ExecError ? error.stderr.trim() : '';
    const words = said === '' ? '' : ` (${lastLine(said)})`;
    throw new RoostError('Unsupported', `QEMU binary ${name} does not answer: ${path}${words}`, {
      cause: error,
      data: { binary: name, path, said },
      hint: `Try \`${path} --version\`.`,
    });
  }
}

const replySchema = z.object({ id: z.string(), return: z.unknown() });

function parseAnswers(output: string): BinaryFacts {
  const reader = new JsonValueReader();
  const values = reader
    .push(Buffer.from(output))
    .flatMap((result) => (result.kind === 'value' ? [result.value] : []));
  const { qemu } = qmpGreetingSchema.parse(values[0]).QMP.version;
  const replies = new Map(
    values.flatMap((value) => {
      const reply = replySchema.safeParse(value);
      return reply.success ? [[reply.data.id, reply.data.return] as const] : [];
    }),
  );
  const machines = qmpReturns['query-machines'].parse(replies.get('query-machines'));
  const cpus = qmpReturns['query-cpu-definitions'].parse(replies.get('query-cpu-definitions'));
  return {
    version: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
    machines: machines
      .filter((machine) => familyOfType(machine.name) !== undefined)
      .map((machine) => ({
        name: machine.name,
        ...(machine.alias === undefined ? {} : { alias: machine.alias }),
        cpuMax: machine['cpu-max'],
      }))
      .toSorted((a, b) => byVersion(b.name, a.name)),
    cpuModels: cpus.map((cpu) => ({
      name: cpu.name,
      needsKvm: cpu['unavailable-features']?.includes('kvm') ?? false,
    })),
  };
}

const versionOf = (type: string): readonly number[] =>
  (type.match(/[\d.]+$/)?.[0] ?? '').split('.').map(Number);

function byVersion(a: string, b: string): number {
  const [left, right] = [versionOf(a), versionOf(b)];
  for (let part = 0; part < Math.max(left.length, right.length); part += 1) {
    const difference = (left[part] ?? 0) - (right[part] ?? 0);
    if (difference !== 0) return difference;
  }
  return a < b ? -1 : 1;
}

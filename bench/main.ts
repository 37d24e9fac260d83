/**
 * Measures Roost against what one would do instead.
 *   bench/run                      every row, and writes bench/results.json and docs/SPECIFICATION.md
 *   bench/run NAME…                these rows only; the others keep their last figures
 *   bench/run --short NAME…        a few samples of each and of what is measured with it, printed and not kept
 *   bench/run --profile DIR NAME…  the daemons leave profiles of their processor time in DIR
 *
 * As root it runs in namespaces of its own, of networks, processes, mounts and control groups: nothing that it makes can
 * outlive it, however it ends, and it meets neither bridges nor rules of the host.
 */
import { spawn } from 'node:child_process';
import { once, setMaxListeners } from 'node:events';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { HostView } from '../protocol/host.ts';
import { type InstanceOptions, startInstance } from './instance.ts';
import type { Figure } from './measure.ts';
import { tableOf, writeResults, writeSpecification } from './report.ts';
import { type RowGroup, rowGroups, rowNames } from './rows.ts';

const INSIDE = 'ROOST_BENCH_INSIDE';
/**
 * The first process of the namespace: a shell, which reaps whoever is left to it. Without that no container would end of
 * whose processes one is.
 */
const REAPER = ['sh', '-c', '"$@"; exit $?', 'sh'] as const;

const { values, positionals } = parseArgs({
  options: { profile: { type: 'string' }, short: { type: 'boolean', default: false } },
  allowPositionals: true,
});

const enterNamespaces = async (): Promise<number> => {
  // liblxc begins its groups at those of the first process: they have to be the top, as on a host.
  const namespaces = ['--net', '--mount', '--pid', '--cgroup', '--fork', '--mount-proc', '--kill-child'];
  const inside = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const child = spawn('unshare', [...namespaces, ...REAPER, ...inside], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  });
  // An interrupt reaches the child by itself; it tidies up, and is waited for.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
};

const chosenGroups = (names: readonly string[]): readonly RowGroup[] => {
  const unknown = names.find((name) => !rowNames.includes(name));
  if (unknown !== undefined) throw new Error(`no row is called ${unknown}; there are ${rowNames.join(', ')}`);
  if (names.length === 0) return rowGroups;
  return rowGroups.filter(({ rows }) => rows.some(({ name }) => names.includes(name)));
};

const describeHost = async (options: InstanceOptions): Promise<HostView> => {
  const instance = await startInstance(options);
  try {
    return await instance.client.call('query-host', {});
  } finally {
    await instance.close();
  }
};

const measureAll = async (options: InstanceOptions): Promise<void> => {
  const privileged = process.getuid?.() === 0;
  const figures: Figure[] = [];
  for (const group of chosenGroups(positionals)) {
    const names = group.rows.map(({ name }) => name).join(', ');
    if (group.needsRoot && !privileged) {
      process.stdout.write(`${names}: left out, because it needs root\n`);
      continue;
    }
    process.stdout.write(`${names} …\n`);
    const taken = await group.measure(options);
    const isWanted = ({ row }: Figure): boolean =>
      values.short || positionals.length === 0 || positionals.includes(row.name);
    figures.push(...taken.filter(isWanted));
  }
  process.stdout.write(`\n${tableOf(figures)}\n`);
  if (values.profile !== undefined || values.short) return;
  await writeSpecification(await writeResults(figures), await describeHost(options));
};

const main = async (): Promise<number> => {
  const outside = process.env[INSIDE] === undefined;
  const controller = new AbortController();
  // Each of many calls at a time listens.
  setMaxListeners(0, controller.signal);
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => controller.abort(new Error(`ended by ${signal}`)));
  if (outside && process.getuid?.() === 0) {
    for (const group of chosenGroups(positionals)) await group.prepare?.(controller.signal);
    return await enterNamespaces();
  }
  await measureAll({
    signal: controller.signal,
    short: values.short,
    ...(values.profile === undefined ? {} : { profileDirectory: resolve(values.profile) }),
  });
  return 0;
};

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  },
);

/**
 * The linux-bridge backend against the real kernel. Taps, bridges and rules belong to the network namespace of the
 * process that makes them, so the tests themselves lie in `linux-bridge/*.namespaced.ts`, and this file runs them by a
 * second vitest in namespaces of its own: network, mounts (with a fresh /run) and processes. Whatever a test leaves
 * there, a dnsmasq included, ends with the first process of the namespace.
 *
 * To run them by hand, as root:
 *   unshare --net --mount --pid --fork --kill-child --mount-proc \
 *     npx vitest run --config test/network/namespace.vitest.config.ts
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

interface Report {
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

const TIMEOUT_MS = 300_000;
const root = resolve(import.meta.dirname, '../..');
const vitest = resolve(root, 'node_modules/vitest/vitest.mjs');
const config = resolve(import.meta.dirname, 'namespace.vitest.config.ts');
const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];

/** Runs the second vitest and gives its report, or what it said instead of one. */
async function runInNamespaces(): Promise<Report | string> {
  const directory = await mkdtemp(join(tmpdir(), 'roost-namespaced-'));
  try {
    const reportFile = join(directory, 'report.json');
    const args = [vitest, 'run', '--config', config, '--reporter=json', `--outputFile=${reportFile}`];
    const said = await new Promise<string>((done) => {
      execFile(
        'unshare',
        [...namespaces, process.execPath, ...args],
        // The second vitest is not a worker of the first.
        { cwd: root, timeout: TIMEOUT_MS, env: { PATH: process.env.PATH, HOME: process.env.HOME } },
        (error, stdout, stderr) => done(`${error?.message ?? ''}\n${stdout}\n${stderr}`),
      );
    });
    const report = await readFile(reportFile, 'utf8').catch(() => undefined);
    return report === undefined ? said : (JSON.parse(report) as Report);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const impossible = process.getuid?.() !== 0 || !existsSync('/dev/net/tun');

// The tests' names are needed before any of them runs, hence here and not in a hook.
const report = impossible ? undefined : await runInNamespaces();

describe.skipIf(impossible)('in namespaces of its own (needs root and /dev/net/tun)', () => {
  it('the tests ran', () => {
    if (typeof report === 'string') throw new Error(report);
    expect(report?.testResults.map((file) => file.message).join('')).toBe('');
    expect(report?.testResults.flatMap((file) => file.assertionResults).length).toBeGreaterThan(0);
  });

  const results =
    typeof report === 'object' ? report.testResults.flatMap((file) => file.assertionResults) : [];
  it.each(
    results.map(({ fullName, status, failureMessages }) => [fullName, status, failureMessages] as const),
  )('%s', (_name, status, failureMessages) => {
    expect(failureMessages.join('\n')).toBe('');
    expect(status).toBe('passed');
  });
});

/** Debian's docker-registry on the loopback interface, with its files in a directory of the test's own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { python } from './oci-layout.ts';
import { testDirectory } from './test-directory.ts';

export interface RealRegistry {
  /** Host and port. */
  readonly host: string;
}

export interface RealRegistryOptions {
  /** Asks for this name and password. */
  readonly user?: { readonly username: string; readonly password: string };
  /** Paths of key and certificate. */
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** Ended when the running test ends. */
export const startRegistry = async ({ user, tls }: RealRegistryOptions = {}): Promise<RealRegistry> => {
  const directory = await testDirectory('registry');
  const htpasswd = join(directory, 'htpasswd');
  if (user) {
    const hash = await python(
      directory,
      `import crypt,warnings\nprint(crypt.crypt(${JSON.stringify(user.password)}, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))`,
    );
    await writeFile(htpasswd, `${user.username}:${hash.trim()}\n`);
  }
  const config = {
    version: '0.1',
    log: { level: 'info', formatter: 'json' },
    storage: { filesystem: { rootdirectory: directory } },
    http: {
      addr: '127.0.0.1:0',
      ...(tls ? { tls: { key: tls.key, certificate: tls.cert } } : {}),
    },
    ...(user ? { auth: { htpasswd: { realm: 'test', path: htpasswd } } } : {}),
  };
  const path = join(directory, 'config.yml');
  await writeFile(path, JSON.stringify(config));
  const child = spawn('docker-registry', ['serve', path], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'exit');
  onTestFinished(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  let said = '';
  const host = await new Promise<string>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const found = /listening on (127\.0\.0\.1:\d+)/.exec(said)?.[1];
      if (found !== undefined) resolve(found);
    });
    child.once('exit', () => reject(new Error(`docker-registry ended:\n${said}`)));
    child.once('error', reject);
  });
  return { host };
};

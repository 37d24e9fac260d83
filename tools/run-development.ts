/**
 * `make run` and `make clean`: a daemon of one's own in ./.roost, with its own bridge and rules, that never touches an
 * installed service; an image, Debian or with IMAGE=small a small Linux, and a first guest booted from it to its login.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, watch } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { execa } from 'execa';
import { type Client, connect } from '../cli/client.ts';
import { sessionOutput } from '../cli/session-output.ts';
import { deadline } from '../lib/abort.ts';
import { systemClock } from '../lib/clock.ts';
import { ensureDebianImage } from './debian-image/ensure-debian-image.ts';
import { withFileLock } from './file-lock.ts';
import { type FirstGuest, firstGuestOf, IMAGE_LABEL } from './first-guest.ts';
import { ensureSmallImage } from './small-image/ensure-small-image.ts';

const root = dirname(import.meta.dirname);
const home = join(root, '.roost');
const stateDirectory = join(home, 'state');
const runDirectory = join(home, 'run');
const socketPath = join(runDirectory, 'roost.sock');
const logPath = join(home, 'roostd.log');
const cacheDirectory = join(root, '.cache', 'guest-images');
/** Held while this program works: of two at once, one waits for the other. Not in `home`, which `make clean` takes. */
const instanceLockPath = join(root, '.cache', 'development.lock');

const GUEST = 'first';
const NETWORK = 'default';
/** Marks what `make run` made, so that `make clean` knows it from what a person made. */
const MADE_BY = { 'roost/made-by': 'make-run' } as const;

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 30_000;
/** Debian under emulation on a busy machine. */
const LOGIN_TIMEOUT_MS = 900_000;
/** The daemon's own last word of its start. */
const READY_LINE = '"msg":"ready"';

const isTty = process.stdout.isTTY;
const say = (text: string): void => void process.stdout.write(`${text}\n`);
/** A line that the next one replaces where a person watches, and that is left out where nobody does. */
const sayBriefly = (text: string): void => {
  if (isTty) process.stdout.write(`\r\x1b[K${text}`);
};
const endBrief = (): void => {
  if (isTty) process.stdout.write('\r\x1b[K');
};

const privileged = process.getuid?.() === 0;

const tryConnect = async (signal: AbortSignal): Promise<Client | undefined> => {
  try {
    const client = await connect({ socketPath, signal });
    return client;
  } catch {
    return undefined;
  }
};

/** Resolves when the daemon's log says that it is ready; rejects when the daemon ends before. */
const waitUntilReady = (child: ChildProcess, signal: AbortSignal): Promise<void> =>
  new Promise<void>((resolve, reject) => {
    const where = `its log is ${relative(root, logPath)}`;
    const watcher = watch(logPath, () => {
      void readFile(logPath, 'utf8').then((text) => {
        if (text.includes(READY_LINE)) resolve();
      });
    });
    child.once('exit', (code) => reject(new Error(`roostd ended with ${code}; ${where}`)));
    signal.addEventListener('abort', () => reject(new Error(`roostd was not ready in time; ${where}`)), {
      once: true,
    });
    signal.addEventListener('abort', () => watcher.close(), { once: true });
  });

/** Starts the daemon in the background and waits until it is ready. */
const startDaemon = async (): Promise<Client> => {
  await mkdir(home, { recursive: true });
  const log = openSync(logPath, 'w');
  const args = [join(root, 'bin/roostd'), '--state-dir', stateDirectory, '--run-dir', runDirectory];
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  using limit = deadline(START_TIMEOUT_MS);
  const ended = new AbortController();
  try {
    await waitUntilReady(child, AbortSignal.any([limit.signal, ended.signal]));
  } finally {
    ended.abort();
  }
  child.unref();
  return await connect({ socketPath, signal: new AbortController().signal });
};

/** Whether somebody holds the flock(2) on a file that is there. */
const isLocked = async (path: string): Promise<boolean> =>
  existsSync(path) && (await execa('flock', ['-n', path, 'true'], { reject: false })).exitCode === 1;

/** Our daemon without its socket, as when somebody deleted the run directory: nobody can reach it any more. */
const endUnreachableDaemon = async (): Promise<void> => {
  const lockPath = join(stateDirectory, 'lock');
  if (!(await isLocked(lockPath))) return;
  const pid = Number.parseInt(await readFile(lockPath, 'utf8'), 10);
  const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  if (!argv.includes(stateDirectory))
    throw new Refusal(`Somebody holds ${relative(root, lockPath)}: pid ${pid}`);
  say(`roostd (pid ${pid}) does not answer on its socket; ending it, its guests run on`);
  process.kill(pid, 'SIGTERM');
  using limit = deadline(STOP_TIMEOUT_MS);
  await withFileLock({ path: lockPath, signal: limit.signal }, () => Promise.resolve());
};

const openDaemon = async (): Promise<Client> => {
  const running = existsSync(socketPath) ? await tryConnect(new AbortController().signal) : undefined;
  if (running) return running;
  await endUnreachableDaemon();
  say('Starting roostd …');
  return await startDaemon();
};

/** Calls a changing command and waits for its end, telling each step. */
const change = async (
  client: Client,
  text: string,
  call: () => Promise<{ operation: string; id: string }>,
): Promise<string> => {
  sayBriefly(`${text} …`);
  const { operation, id } = await call();
  const ended = await client.callAny('operation-wait', { operation });
  endBrief();
  const { state, error } = ended as { state: string; error?: { desc: string; hint?: string } };
  if (state !== 'succeeded')
    throw new Error(`${text}: ${error?.desc ?? state}${error?.hint ? `\n${error.hint}` : ''}`);
  say(text);
  return id;
};

/** The file of an image, out of the cache or built now. */
const imageFile = async (image: FirstGuest['image']): Promise<string> => {
  if (image === 'small') {
    const built = await ensureSmallImage({
      directory: cacheDirectory,
      onProgress: ({ done, total, message }) => sayBriefly(`Small Linux image: ${done}/${total} ${message}`),
    });
    endBrief();
    say('Small Linux image built from Debian packages');
    return built.smallDisk;
  }
  const path = await ensureDebianImage({
    directory: cacheDirectory,
    onBuild: () => say('Building a Debian image out of packages: a minute or two, once'),
    onProgress: ({ done, message }) => sayBriefly(`Debian image: ${done} % ${message ?? ''}`),
  });
  endBrief();
  return path;
};

const ensureImage = async (client: Client, image: FirstGuest['image']): Promise<void> => {
  const { images } = await client.call('query-images', {});
  if (images.some(({ name }) => name === image)) return;
  const path = await imageFile(image);
  await change(client, `Image ${image} imported`, () =>
    client.call('image-import', { name: image, kind: 'disk', format: 'qcow2', path }),
  );
};

const ensureNetwork = async (client: Client): Promise<void> => {
  const { networks } = await client.call('query-networks', {});
  if (networks.some((network) => network.name === NETWORK)) return;
  const kind = privileged ? 'nat' : 'user';
  await change(client, `Network ${NETWORK} (${kind}) made`, () =>
    client.call('network-create', { name: NETWORK, kind }),
  );
};

/** Watches the guest's console until it says that it is up; resolves with what it wrote last. */
const watchBoot = async (up: RegExp, signal: AbortSignal): Promise<string> => {
  const client = await connect({ socketPath, signal });
  const args = { guest: GUEST, framed: true, replayBytes: 65_536 } as const;
  const socket = await client.attach('guest-console', args, { signal });
  const stopWatching = (): void => void socket.destroy();
  signal.addEventListener('abort', stopWatching);
  const startedAt = systemClock.now();
  let text = '';
  const failed = (what: string): Error => new Error(`${what}. What it wrote last:\n${text.slice(-2000)}`);
  try {
    for await (const chunk of sessionOutput(socket)) {
      text = (text + chunk.toString('utf8')).slice(-65_536);
      if (up.test(text)) return text;
      sayBriefly(
        `Booting, ${Math.round((systemClock.now() - startedAt) / 1000)} s: ${text.trimEnd().split('\n').at(-1)?.trim().slice(0, 70) ?? ''}`,
      );
    }
    throw failed('The guest ended before it asked for a login');
  } catch (error) {
    throw signal.aborted ? failed('No login on the console in time') : error;
  } finally {
    endBrief();
    signal.removeEventListener('abort', stopWatching);
    socket.destroy();
  }
};

const tellNext = async (client: Client, { login, more }: FirstGuest): Promise<void> => {
  const { nics } = await client.call('query-guest', { guest: GUEST });
  // In a network of kind user nobody reaches it from outside.
  const lines = nics[0]?.ipv4 === undefined ? [] : more;
  const socket = relative(process.cwd(), socketPath);
  say(`
${login} Try next:

  export ROOST_SOCKET=${socket.startsWith('..') ? socketPath : `$PWD/${socket}`}
  bin/roost ls                 # every guest, its state and addresses
  bin/roost console ${GUEST}      # its serial console; Ctrl-] leaves
${lines.map((line) => `  ${line}\n`).join('')}  bin/roost stop ${GUEST}         # press its power button
`);
};

const run = async (): Promise<void> => {
  const client = await openDaemon();
  const { guests } = await client.call('query-guests', { nameGlob: GUEST });
  const before = guests[0];
  const first = await firstGuestOf(
    before ? (before.labels?.[IMAGE_LABEL] ?? 'small') : (process.env['IMAGE'] ?? 'debian'),
  );
  if (before?.state === 'running') {
    say(`The guest ${GUEST} is there and runs.`);
    await tellNext(client, first);
    client.close();
    return;
  }
  if (before?.state === 'unresponsive') {
    client.close();
    throw new Refusal(
      `The guest ${GUEST} runs, but its monitor does not answer (${before.reason ?? 'silent'}).\nTo end it: bin/roost stop --force ${GUEST}, then make run`,
    );
  }
  if (!before) {
    await ensureImage(client, first.image);
    await ensureNetwork(client);
    await change(client, `Guest ${GUEST} created`, () =>
      client.call('guest-create', {
        name: GUEST,
        description: 'Made by make run',
        labels: { ...MADE_BY, ...first.labels },
        ...first.spec,
        nics: [{ network: NETWORK }],
      }),
    );
  } else say(`The guest ${GUEST} is there.`);
  await change(client, `Guest ${GUEST} started`, () => client.call('guest-start', { guest: GUEST }));
  const { process: started } = await client.call('query-guest', { guest: GUEST });
  say(`Booting (${started?.accel ?? 'unknown accelerator'}) …`);
  using limit = deadline(LOGIN_TIMEOUT_MS);
  const text = await watchBoot(first.up, limit.signal);
  if (first.showsEnd) say(text.trimEnd().split('\n').slice(-6).join('\n'));
  await tellNext(client, first);
  client.close();
};

/** Ends the daemon and waits until its process is gone. */
const stopDaemon = async (client: Client): Promise<void> => {
  const { pid } = await client.call('query-daemon', {});
  const events = client.events();
  process.kill(pid, 'SIGTERM');
  try {
    for await (const _event of events) continue;
  } catch {
    // The connection ends with the daemon.
  }
};

const clean = async (force: boolean): Promise<void> => {
  const client = await openDaemon();
  const { guests } = await client.call('query-guests', { limit: 100_000 });
  const others = guests
    .filter((guest) => guest.labels?.['roost/made-by'] !== MADE_BY['roost/made-by'])
    .map((guest) => guest.name);
  if (others.length > 0 && !force) {
    client.close();
    throw new Refusal(
      `These guests were not made by make run: ${others.join(', ')}\nTo delete them as well: make clean FORCE=1`,
    );
  }
  for (const guest of guests) {
    const name = guest.name ?? '';
    if (guest.deleteProtection) await client.call('guest-update', { guest: name, deleteProtection: false });
    await change(client, `Guest ${name} deleted`, () =>
      client.call('guest-delete', { guest: name, force: true }),
    );
  }
  const { networks } = await client.call('query-networks', {});
  for (const network of networks)
    await change(client, `Network ${network.name} deleted`, () =>
      client.call('network-delete', { network: network.name }),
    );
  await stopDaemon(client);
  await rm(home, { recursive: true, force: true });
  say('The development instance is gone.');
};

/** Not a failure: nothing is to be found in the log. */
class Refusal extends Error {}

const main = async (): Promise<void> => {
  const args = process.argv.slice(2);
  const work = args.includes('--clean') ? () => clean(args.includes('--force')) : run;
  await mkdir(cacheDirectory, { recursive: true });
  if (await isLocked(instanceLockPath))
    say('Another make run or make clean is at work here; waiting for it …');
  await withFileLock({ path: instanceLockPath, signal: new AbortController().signal }, work);
};

main().catch(async (error: unknown) => {
  endBrief();
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  const log =
    !(error instanceof Refusal) && existsSync(logPath)
      ? (await readFile(logPath, 'utf8')).trim().split('\n').slice(-5).join('\n')
      : '';
  if (log !== '') process.stderr.write(`The end of ${relative(root, logPath)}:\n${log}\n`);
  // The connection to the daemon, if there is one, would keep this process.
  process.exit(1);
});

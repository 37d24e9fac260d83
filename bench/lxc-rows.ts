/**
 * The life of a container of the driver `lxc`, step by step: over the wire against dockerd's own interface, by the command
 * line against `docker`, and against liblxc's programs by hand. All run the same busybox, without network.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client } from '../cli/client.ts';
import { MEBIBYTE } from '../protocol/types.ts';
import { busyboxRoot } from '../test/harness/busybox-root.ts';
import { type Containers, startContainers } from './containers.ts';
import { type DockerApi, openDockerApi } from './docker-api.ts';
import { type Instance, type InstanceOptions, startInstance } from './instance.ts';
import { timed } from './libvirt-rows.ts';
import { programSampler, roostArgv } from './list-rows.ts';
import { type LxcByHand, prepareByHand } from './lxc-by-hand.ts';
import { type Figure, type SampleLimits, type Sampler, type Sides, takeFigure } from './measure.ts';
import { startSampler } from './start-rows.ts';

const limits: SampleLimits = { warmUps: 2, samples: 25, budgetMs: 30_000 };
const IMAGE = 'busybox';
const MEMORY_BYTES = 64 * MEBIBYTE;
/** Begun and ended again and again; runs all the time; made and deleted again and again. */
const [BEGUN, RUNNING, MADE] = ['begun', 'running', 'made'] as const;
const TRUE = '/bin/true';

export const lxcRows = async (options: InstanceOptions): Promise<readonly Figure[]> => {
  const instance = await startInstance(options);
  try {
    const archive = await busyboxRoot(instance.scratchDirectory);
    await rm(join(instance.scratchDirectory, 'busybox'), { recursive: true });
    const containers = await startContainers(instance.scratchDirectory, archive);
    try {
      await instance.succeed('image-import', { name: IMAGE, kind: 'root', path: archive });
      return await measure(instance, containers, options);
    } finally {
      await containers.close();
    }
  } finally {
    await instance.close();
  }
};

const measure = async (
  instance: Instance,
  containers: Containers,
  options: InstanceOptions,
): Promise<readonly Figure[]> => {
  for (const name of [BEGUN, RUNNING]) await create(instance, name);
  for (const guest of [RUNNING, BEGUN]) await instance.succeed('guest-start', { guest });
  await instance.succeed('guest-stop', { guest: BEGUN, force: true });
  const docker = new DockerSamplers(openDockerApi(containers.dockerSocket));
  const byHand = await lxcOf(instance);
  try {
    await docker.prepare();
    const row = (name: string, sides: Sides): Promise<Figure> =>
      takeFigure(name, 'ms', sides, limits, options);
    const apart = [
      await row('container-create', { roost: () => created(instance), peer: docker.create() }),
      await row('container-start', {
        roost: await startSampler(instance, BEGUN, options.signal),
        peer: docker.start(),
      }),
      await row('container-stop', { roost: () => stopped(instance), peer: docker.kill() }),
      await row('container-delete', { roost: () => deleted(instance), peer: docker.remove() }),
      await row('container-exec', { roost: await execSampler(instance), peer: docker.exec() }),
      await row('container-first-exec', {
        roost: await firstExecSampler(instance, options.signal),
        peer: docker.firstExec(),
      }),
    ];
    return [
      ...apart,
      ...(await measureCommands(instance, { docker: containers.docker, running: docker.running }, options)),
      ...(await measureByHand(instance, byHand, options)),
    ];
  } finally {
    docker.close();
    await byHand.close();
  }
};

/** The same steps as people ask for them: each is a program, from the spawn to its end. */
const measureCommands = async (
  instance: Instance,
  { docker, running }: Pick<Containers, 'docker'> & { readonly running: string },
  options: InstanceOptions,
): Promise<readonly Figure[]> => {
  const ours = (...args: readonly string[]): Sampler => programSampler(roostArgv(instance, ...args), 0);
  const theirs = (...args: readonly string[]): Sampler => programSampler([...docker, ...args], 0);
  const between =
    (before: Sampler | undefined, act: Sampler, after: Sampler | undefined): Sampler =>
    async () => {
      await before?.();
      const ms = await act();
      await after?.();
      return ms;
    };
  const row = (name: string, roost: Sampler, verb: string, sample: Sampler): Promise<Figure> =>
    takeFigure(name, 'ms', { roost, peer: { name: `docker ${verb}`, sample } }, limits, options);
  const made = ['--name', MADE, '--network', 'none', 'box', '/sbin/init'] as const;
  const [create, remove] = [theirs('create', ...made), theirs('rm', '--force', MADE)];
  const [start, kill] = [theirs('start', MADE), theirs('kill', MADE)];
  const [ourStart, ourStop] = [ours('start', BEGUN), ours('stop', '--force', BEGUN)];
  const ourCreate = ours('create', MADE, '--root', IMAGE, '--memory', '64MiB');
  const figures = [
    await row('container-exec-cli', ours('exec', RUNNING, TRUE), 'exec', theirs('exec', running, TRUE)),
    await row(
      'container-create-cli',
      between(undefined, ourCreate, () => timed(() => instance.succeed('guest-delete', { guest: MADE }))),
      'create',
      between(undefined, create, remove),
    ),
  ];
  await create();
  figures.push(
    await row(
      'container-start-cli',
      between(undefined, ourStart, () => timed(() => stop(instance))),
      'start',
      between(undefined, start, kill),
    ),
    await row(
      'container-stop-cli',
      between(() => timed(() => instance.succeed('guest-start', { guest: BEGUN })), ourStop, undefined),
      'kill',
      between(start, kill, undefined),
    ),
  );
  await remove();
  return figures;
};

const measureByHand = async (
  instance: Instance,
  byHand: LxcByHand,
  options: InstanceOptions,
): Promise<readonly Figure[]> => {
  const row = (name: string, roost: Sampler, what: string, sample: Sampler): Promise<Figure> =>
    takeFigure(name, 'ms', { roost, peer: { name: what, sample } }, limits, options);
  const begun =
    (act: () => Promise<void>): Sampler =>
    async () => {
      const ms = await timed(act);
      await byHand.stop();
      return ms;
    };
  const start = await startSampler(instance, BEGUN, options.signal);
  const first = await firstExecSampler(instance, options.signal);
  const figures = [
    await row(
      'container-start-lxc',
      start,
      'lxc-start',
      begun(() => byHand.start()),
    ),
    await row(
      'container-first-exec-lxc',
      first,
      'lxc-start and lxc-attach',
      begun(async () => {
        await byHand.start();
        await byHand.attach();
      }),
    ),
    await row(
      'container-stop-lxc',
      () => stopped(instance),
      'lxc-stop -k',
      async () => {
        await byHand.start();
        return await timed(() => byHand.stop());
      },
    ),
  ];
  await byHand.start();
  const attach = (): Promise<number> => timed(() => byHand.attach());
  figures.push(await row('container-exec-lxc', await execSampler(instance), 'lxc-attach', attach));
  await byHand.stop();
  return figures;
};

const create = (instance: Instance, name: string): Promise<void> =>
  instance.succeed('guest-create', {
    name,
    driver: 'lxc',
    memoryBytes: MEMORY_BYTES,
    boot: { kind: 'root', image: IMAGE },
  });

const created = async (instance: Instance): Promise<number> => {
  const ms = await timed(() => create(instance, MADE));
  await instance.succeed('guest-delete', { guest: MADE });
  return ms;
};

const deleted = async (instance: Instance): Promise<number> => {
  await create(instance, MADE);
  return await timed(() => instance.succeed('guest-delete', { guest: MADE }));
};

const stopped = async (instance: Instance): Promise<number> => {
  await instance.succeed('guest-start', { guest: BEGUN });
  return await timed(() => stop(instance));
};

const stop = (instance: Instance): Promise<void> =>
  instance.succeed('guest-stop', { guest: BEGUN, force: true });

/** On a connection that is there. Resolves when it has ended well. */
const exec = async (client: Client, guest: string): Promise<void> => {
  const { pid } = await client.call('guest-exec', { guest, path: TRUE });
  const { exited, exitcode } = await client.call('guest-exec-status', { guest, pid, waitMs: 10_000 });
  if (!exited || exitcode !== 0) throw new Error(`${TRUE} in ${guest} ended with ${exitcode ?? 'nothing'}`);
};

const execSampler = async (instance: Instance): Promise<Sampler> => {
  const client = await instance.connect();
  return () => timed(() => exec(client, RUNNING));
};

/** From `guest-start` written to the socket until a program has run in it, which may be as soon as its agent is there. */
const firstExecSampler = async (instance: Instance, signal: AbortSignal): Promise<Sampler> => {
  const client = await instance.connect();
  await client.call('events-subscribe', { events: ['GUEST_AGENT_CHANGED'], guests: [BEGUN] });
  const guest = BEGUN;
  return async () => {
    const events = client.events();
    const begun = performance.now();
    const accepted = client.call('guest-start', { guest }, { signal });
    for await (const { data } of events) if (data['state'] === 'connected') break;
    await exec(client, guest);
    const ms = performance.now() - begun;
    await instance.finished((await accepted).operation);
    await instance.succeed('guest-stop', { guest, force: true });
    return ms;
  };
};

/** What Roost left of its own container, and the same by hand. */
const lxcOf = async ({ client, scratchDirectory }: Instance): Promise<LxcByHand> => {
  const { stateDirectory, instance } = await client.call('query-daemon', {});
  const { id } = await client.call('query-guest', { guest: BEGUN });
  const configuration = join(stateDirectory, 'guests', id, 'config');
  return await prepareByHand(scratchDirectory, { configuration, group: `roost-${instance}-${id}` });
};

type Peer = NonNullable<Sides['peer']>;

/** The same steps, asked of dockerd. */
class DockerSamplers {
  /** Id of a container that runs all the time. */
  running = '';
  readonly #api: DockerApi;

  constructor(api: DockerApi) {
    this.#api = api;
  }

  async prepare(): Promise<void> {
    this.running = await this.#create();
    await this.#start(this.running);
  }

  close(): void {
    this.#api.close();
  }

  create(): Peer {
    return peer('create', async () => {
      let id = '';
      const ms = await timed(async () => {
        id = await this.#create();
      });
      await this.#remove(id);
      return ms;
    });
  }

  start(): Peer {
    return peer('start', () => this.#withNew((id) => timed(() => this.#start(id))));
  }

  kill(): Peer {
    return peer('kill and wait', () =>
      this.#withNew(async (id) => {
        await this.#start(id);
        return await timed(() => this.#kill(id));
      }),
    );
  }

  remove(): Peer {
    return peer('remove', async () => {
      const id = await this.#create();
      return await timed(() => this.#remove(id));
    });
  }

  exec(): Peer {
    return peer('exec', () => timed(() => this.#exec(this.running)));
  }

  firstExec(): Peer {
    return peer('start and exec', () =>
      this.#withNew((id) =>
        timed(async () => {
          await this.#start(id);
          await this.#exec(id);
        }),
      ),
    );
  }

  async #withNew(sample: (id: string) => Promise<number>): Promise<number> {
    const id = await this.#create();
    const ms = await sample(id);
    await this.#remove(id);
    return ms;
  }

  async #create(): Promise<string> {
    const HostConfig = { NetworkMode: 'none', Memory: MEMORY_BYTES };
    const body = { Image: 'box', Cmd: ['/sbin/init'], HostConfig };
    return idIn(await this.#api.call('POST', '/containers/create', body));
  }

  async #start(id: string): Promise<void> {
    await this.#api.call('POST', `/containers/${id}/start`);
  }

  async #kill(id: string): Promise<void> {
    await this.#api.call('POST', `/containers/${id}/kill`);
    await this.#api.call('POST', `/containers/${id}/wait`);
  }

  async #remove(id: string): Promise<void> {
    await this.#api.call('DELETE', `/containers/${id}?force=true`);
  }

  async #exec(container: string): Promise<void> {
    const body = { AttachStdout: true, AttachStderr: true, Cmd: [TRUE] };
    const id = idIn(await this.#api.call('POST', `/containers/${container}/exec`, body));
    await this.#api.call('POST', `/exec/${id}/start`, { Detach: false, Tty: false });
    const { ExitCode } = JSON.parse(await this.#api.call('GET', `/exec/${id}/json`)) as { ExitCode: unknown };
    if (ExitCode !== 0) throw new Error(`${TRUE} in a container of docker ended with ${String(ExitCode)}`);
  }
}

const idIn = (answer: string): string => (JSON.parse(answer) as { readonly Id: string }).Id;

const peer = (what: string, sample: Sampler): Peer => ({ name: `dockerd: ${what}`, sample });

/**
 * A cheap question, asked again and again: the state of one guest. Beside QEMU's own monitor, which answers
 * `query-status` from memory, and libvirt's virDomainGetState. Microseconds for each, so that less is better.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { InstanceOptions } from './instance.ts';
import { type Domain, LibvirtClient } from './libvirt/client.ts';
import { type Sides, withLibvirtd } from './libvirt-rows.ts';
import { replyOf, silence } from './list-rows.ts';
import {
  type Figure,
  figureOf,
  growthOf,
  type Point,
  quantile,
  type SampleLimits,
  type Sampler,
  type TakeOptions,
  takeFigure,
} from './measure.ts';
import { kernelName, MEMORY_BYTES } from './start-rows.ts';

const WARM_UPS = 1;
const limits: SampleLimits = { warmUps: WARM_UPS, samples: 15, budgetMs: 20_000 };
/** In one sample. */
const REQUESTS = 2_000;
const CONNECTIONS = [1, 10, 50] as const;
const NEGOTIATION = '{"execute":"qmp_capabilities"}';
const QUESTION = JSON.stringify({
  execute: 'query-guests',
  arguments: { names: ['asked'], fields: ['name', 'state'] },
});

/** Asks once; resolves with the answer. */
type Ask = () => Promise<unknown>;

const asking =
  (socket: Socket, question: string): Ask =>
  () => {
    const reply = replyOf(socket);
    socket.write(question);
    return reply;
  };

const roostAsker = async (path: string): Promise<{ readonly ask: Ask; readonly close: () => void }> => {
  const socket = connect(path);
  await replyOf(socket);
  for (const request of [NEGOTIATION, silence]) await asking(socket, request)();
  return { ask: asking(socket, QUESTION), close: () => socket.destroy() };
};

/** A QEMU without a machine, which calls the bench: so it is known when its monitor is there. */
const openQemu = async (
  directory: string,
): Promise<{ readonly ask: Ask; readonly close: () => Promise<void> }> => {
  const path = join(directory, 'qmp');
  const server = createServer().listen(path);
  await once(server, 'listening');
  const called = once(server, 'connection') as Promise<[Socket]>;
  const machine = ['-machine', 'none', '-S', '-nodefaults', '-display', 'none'];
  const monitor = ['-chardev', `socket,id=qmp,path=${path}`, '-mon', 'chardev=qmp,mode=control'];
  const qemu = spawn('qemu-system-x86_64', [...machine, ...monitor], { stdio: 'ignore' });
  const ended = once(qemu, 'exit');
  const [socket] = await called;
  await replyOf(socket);
  await asking(socket, NEGOTIATION)();
  return {
    ask: asking(socket, '{"execute":"query-status"}'),
    close: async () => {
      qemu.kill('SIGKILL');
      await ended;
      socket.destroy();
      server.close();
    },
  };
};

/** Microseconds for each of many, one after the other. */
const oneAfterTheOther =
  (ask: Ask): Sampler =>
  async () => {
    const begun = performance.now();
    for (let asked = 0; asked < REQUESTS; asked += 1) await ask();
    return ((performance.now() - begun) * 1000) / REQUESTS;
  };

/** The same of many who ask at a time; `times` gets how long each question took, in microseconds. */
const allAtOnce =
  (askers: readonly Ask[], times: number[]): Sampler =>
  async () => {
    times.splice(0);
    const begun = performance.now();
    await Promise.all(
      askers.map(async (ask) => {
        for (let asked = 0; asked < REQUESTS / askers.length; asked += 1) {
          const since = performance.now();
          await ask();
          times.push((performance.now() - since) * 1000);
        }
      }),
    );
    return ((performance.now() - begun) * 1000) / REQUESTS;
  };

/** The time by request, and of the slowest in a hundred. */
const withMany = async (
  sides: Sides,
  domain: Domain,
  count: number,
  options: TakeOptions,
): Promise<readonly [Figure, Figure]> => {
  const { socketPath } = sides.instance;
  const ours = await Promise.all(Array.from({ length: count }, () => roostAsker(socketPath)));
  const theirs = await Promise.all(
    Array.from({ length: count }, () => LibvirtClient.open(sides.libvirtd.socketPath)),
  );
  const [ourTimes, theirTimes]: [number[], number[]] = [[], []];
  const [ourTails, theirTails]: [number[], number[]] = [[], []];
  const roost = allAtOnce(
    ours.map(({ ask }) => ask),
    ourTimes,
  );
  const peer = allAtOnce(
    theirs.map((client) => () => client.state(domain)),
    theirTimes,
  );
  const keeping =
    (sample: Sampler, times: readonly number[], tails: number[]): Sampler =>
    async () => {
      const value = await sample();
      tails.push(quantile(times, 0.99));
      return value;
    };
  const figure = await takeFigure(
    `request-${count}`,
    'µs',
    {
      roost: keeping(roost, ourTimes, ourTails),
      peer: { name: 'virDomainGetState of libvirtd 9', sample: keeping(peer, theirTimes, theirTails) },
    },
    limits,
    options,
  );
  for (const { close } of ours) close();
  for (const client of theirs) client.close();
  const tail = figureOf(`request-${count}-p99`, 'µs', ourTails.slice(WARM_UPS), {
    name: 'virDomainGetState of libvirtd 9',
    values: theirTails.slice(WARM_UPS),
  });
  return [figure, tail];
};

export const requestRows = (options: InstanceOptions): Promise<readonly Figure[]> =>
  withLibvirtd(options, async (sides) => {
    const { instance, libvirt, xmlOf } = sides;
    const boot = { kind: 'kernel', kernel: kernelName } as const;
    await instance.succeed('guest-create', { name: 'asked', memoryBytes: MEMORY_BYTES, boot, start: true });
    const domain = await libvirt.define(xmlOf('asked', MEMORY_BYTES));
    await libvirt.createPaused(domain);
    const roost = await roostAsker(instance.socketPath);
    const qemu = await openQemu(instance.scratchDirectory);
    const ours = oneAfterTheOther(roost.ask);
    const ofQemu = { name: 'query-status of QEMU', sample: oneAfterTheOther(qemu.ask) };
    const ofLibvirt = {
      name: 'virDomainGetState of libvirtd 9',
      sample: oneAfterTheOther(() => libvirt.state(domain)),
    };
    const figures = [
      await takeFigure('request-1-qmp', 'µs', { roost: ours, peer: ofQemu }, limits, options),
      await takeFigure('request-1-libvirt', 'µs', { roost: ours, peer: ofLibvirt }, limits, options),
    ];
    const points: Point[] = [];
    for (const size of CONNECTIONS) {
      const [figure, tail] = await withMany(sides, domain, size, options);
      points.push({ size, figure });
      figures.push(figure, tail);
    }
    figures.push(growthOf('request-growth', points));
    roost.close();
    await qemu.close();
    await libvirt.destroy(domain);
    return figures;
  });

/**
 * The guest's end of an agent's channel, in the place of QEMU: answers as the agent does unless a test says otherwise.
 * It exists to misbehave: whatever a guest can put on the line, it can.
 */

import { rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { deferred } from '../../../../lib/abort.ts';
import { JsonValueReader } from '../../../../lib/json-values.ts';
import { makeDirectory } from '../../../harness/test-directory.ts';

type Message = { readonly execute: string; readonly arguments: Readonly<Record<string, unknown>> };
/** Does with a request what it likes. */
export type Behaviour = (message: Message, line: Socket) => void;

export const reply = (line: Socket, value: unknown): void => void line.write(`${JSON.stringify(value)}\n`);

/** As a healthy agent: a sync is answered behind the delimiter, everything else by the table. */
export const healthy =
  (answers: Readonly<Record<string, unknown>> = {}): Behaviour =>
  ({ execute, arguments: args }, line) => {
    if (execute === 'guest-sync-delimited') {
      line.write(Buffer.from([0xff]));
      reply(line, { return: args['id'] });
    } else if (execute in answers) reply(line, { return: answers[execute] });
    else
      reply(line, { error: { class: 'CommandNotFound', desc: `The command ${execute} has not been found` } });
  };

export class EvilAgent implements AsyncDisposable {
  readonly path: string;
  behaviour: Behaviour;
  /** Every request, in the order they came. */
  readonly asked: string[] = [];
  readonly #server: Server;
  readonly #lines = new Set<Socket>();
  readonly #waiters = new Set<{ readonly isSo: () => boolean; readonly resolve: () => void }>();

  private constructor(path: string, behaviour: Behaviour) {
    this.path = path;
    this.behaviour = behaviour;
    this.#server = createServer((line) => this.#serve(line));
  }

  static async start(behaviour: Behaviour = healthy()): Promise<EvilAgent> {
    const agent = new EvilAgent(join(await makeDirectory('agent'), 'agent.sock'), behaviour);
    await new Promise<void>((resolve) => agent.#server.listen(agent.path, resolve));
    return agent;
  }

  get connections(): number {
    return this.#lines.size;
  }

  /** Resolves when the condition holds; looked at whenever a request comes or a connection ends. */
  async until(isSo: () => boolean): Promise<void> {
    if (isSo()) return;
    const { promise, resolve } = deferred<void>();
    this.#waiters.add({ isSo, resolve });
    await promise;
  }

  /** Something that nobody asked for, on every line. */
  say(bytes: Buffer | string): void {
    for (const line of this.#lines) line.write(bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const line of this.#lines) line.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(dirname(this.path), { recursive: true, force: true });
  }

  #serve(line: Socket): void {
    this.#lines.add(line);
    const reader = new JsonValueReader({ maxValueBytes: 8 * 1024 * 1024 });
    line.on('data', (chunk: Buffer) => {
      for (const result of reader.push(chunk)) {
        if (result.kind !== 'value') throw new Error(`the client sent no JSON: ${result.message}`);
        const message = result.value as Message;
        this.asked.push(message.execute);
        this.behaviour(message, line);
        this.#look();
      }
    });
    line.on('error', () => undefined);
    line.on('close', () => {
      this.#lines.delete(line);
      this.#look();
    });
  }

  #look(): void {
    for (const waiter of [...this.#waiters].filter(({ isSo }) => isSo())) {
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }
}

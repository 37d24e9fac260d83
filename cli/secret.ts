/**
 * Reads a password without showing it: twice from a terminal, else the first line of standard input. It is never an
 * argument of a process, where everybody on the host could read it.
 */
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { Interrupted, usageFailure } from './failure.ts';
import type { Io } from './io.ts';

/** As long as `openssl passwd` takes one without cutting it. */
const MAX_BYTES = 255;

/** One line that is not echoed. Throws Interrupted. */
const askHidden = ({ stdin, stderr, signal }: Io, prompt: string): Promise<string> => {
  const silent = new Writable({ write: (_chunk, _encoding, callback) => callback() });
  const reader = createInterface({ input: stdin, output: silent, terminal: true });
  return new Promise<string>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    // In raw mode Ctrl-C is a key.
    reader.once('SIGINT', () => reject(new Interrupted()));
    reader.once('close', () => reject(usageFailure('No password was given')));
    reader.once('line', resolve);
    stderr.write(prompt);
  }).finally(() => {
    reader.close();
    stderr.write('\n');
  });
};

/** Longest password of a registry; tokens are used as such. */
const MAX_REGISTRY_BYTES = 65_536;

const isTerminal = ({ stdin }: Io): boolean => stdin.isTTY === true;

const firstLine = async ({ stdin }: Io): Promise<string> => (await text(stdin)).split(/\r?\n/, 1)[0] ?? '';

const refuseUnfit = (password: string, maxBytes: number): string => {
  if (password === '')
    throw usageFailure('No password was given', 'Type it, or give it on standard input as one line.');
  if (Buffer.byteLength(password) > maxBytes)
    throw usageFailure(`The password is longer than ${maxBytes} bytes`);
  return password;
};

/** The password of a user of a registry, asked for once. Throws CliFailure for none, Interrupted. */
export const readRegistryPassword = async (io: Io, username: string): Promise<string> =>
  refuseUnfit(
    isTerminal(io) ? await askHidden(io, `Password of ${username}: `) : await firstLine(io),
    MAX_REGISTRY_BYTES,
  );

const askTwice = async (io: Io): Promise<string> => {
  const password = await askHidden(io, 'Password for the guest: ');
  if (password !== (await askHidden(io, 'Again: '))) throw usageFailure('The two passwords are not the same');
  return password;
};

/** Throws CliFailure for none or one that is too long, Interrupted. */
export const readPassword = async (io: Io): Promise<string> => {
  return refuseUnfit(isTerminal(io) ? await askTwice(io) : await firstLine(io), MAX_BYTES);
};

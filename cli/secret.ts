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

const askTwice = async (io: Io): Promise<string> => {
  const password = await askHidden(io, 'Password for the guest: ');
  if (password !== (await askHidden(io, 'Again: '))) throw usageFailure('The two passwords are not the same');
  return password;
};

/** Throws CliFailure for none or one that is too long, Interrupted. */
export const readPassword = async (io: Io): Promise<string> => {
  const password =
    io.stdin.isTTY === true ? await askTwice(io) : ((await text(io.stdin)).split(/\r?\n/, 1)[0] ?? '');
  if (password === '')
    throw usageFailure('No password was given', 'Type it, or give it on standard input as one line.');
  if (Buffer.byteLength(password) > MAX_BYTES)
    throw usageFailure(`The password is longer than ${MAX_BYTES} bytes`);
  return password;
};

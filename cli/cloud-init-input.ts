/**
 * What `create` and `update` say to cloud-init beyond a plain mapping of flags: texts from files, keys from files, and the
 * hash of a password, which itself goes no further than the tool that hashes it. Imported only when one of
 * these flags is given.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { sshKeyPattern } from '../protocol/ssh-key-pattern.ts';
import { CliFailure, usageFailure } from './failure.ts';
import type { Context } from './io.ts';
import { readPassword } from './secret.ts';
import type { Arguments, Invocation } from './verb.ts';

const run = promisify(execFile);
const HASHING_TIMEOUT_MS = 60_000;

/** A text as it lies in a file. Throws CliFailure. */
const readText = async (path: string): Promise<string> => {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw usageFailure(`Cannot read '${path}': ${error instanceof Error ? error.message : String(error)}`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw usageFailure(`'${path}' is no UTF-8 text`, 'Unpack it first if it is compressed.');
  }
};

/** The keys of a .pub file, or the one that was given itself. */
const readKeys = async (given: string): Promise<readonly string[]> => {
  const key = given.trim();
  if (sshKeyPattern.test(key)) return [key];
  const content = await readText(given);
  if (content.includes('PRIVATE KEY-----'))
    throw usageFailure(`'${given}' is a private key`, `Give the public one, mostly '${given}.pub'.`);
  const keys = content
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  const strange = keys.find((line) => !sshKeyPattern.test(line));
  if (keys.length === 0 || strange !== undefined)
    throw usageFailure(`'${given}' holds no public keys of SSH`, 'Give a .pub file or the key itself.');
  return keys;
};

/** SHA-512 crypt, which every image of the last ten years takes. The password goes to the tool's standard input. */
const hashPassword = async (password: string, signal: AbortSignal): Promise<string> => {
  signal.throwIfAborted();
  const running = run('openssl', ['passwd', '-6', '-stdin'], { signal, timeout: HASHING_TIMEOUT_MS });
  // One that ends without reading says so by its end.
  running.child.stdin?.on('error', () => undefined).end(`${password}\n`);
  try {
    return (await running).stdout.trim();
  } catch (error) {
    signal.throwIfAborted();
    throw new CliFailure({
      class: 'HostError',
      desc: `The password could not be hashed: ${error instanceof Error ? error.message.trim() : String(error)}`,
      hint: 'Install openssl, or give a hash of your own with --password-hash.',
    });
  }
};

const textFlags = [
  ['user-data', 'userData'],
  ['meta-data', 'metaData'],
  ['network-config', 'networkConfig'],
] as const;

const refuseOneInputTwice = ({ flags }: Invocation): void => {
  if (flags['password'] !== true || flags['from-json'] !== '-') return;
  throw usageFailure('--password and --from-json - both read standard input', 'Give the JSON as a file.');
};

/** The member `cloudInit` of a command's arguments, on top of what plain flags filled. */
export const cloudInitInput = async (
  filled: Arguments | undefined,
  invocation: Invocation,
  context: Context,
): Promise<Arguments | null> => {
  refuseOneInputTwice(invocation);
  const { flags } = invocation;
  if (flags['cloud-init'] === false) return null;
  let result: Arguments = filled ?? {};
  for (const [flag, member] of textFlags) {
    const path = flags[flag] as string | undefined;
    if (path !== undefined) result = { ...result, [member]: path === '' ? null : await readText(path) };
  }
  const given = flags['ssh-key'] as readonly string[] | undefined;
  if (given !== undefined) {
    const keys = (await Promise.all(given.filter((key) => key !== '').map(readKeys))).flat();
    result = { ...result, sshKeys: keys };
  }
  if (flags['password'] === false) return { ...result, passwordHash: null };
  if (flags['password'] !== true) return result;
  return { ...result, passwordHash: await hashPassword(await readPassword(context.io), context.signal) };
};

/**
 * `roostd --check-config`: what the configuration names that this host does not have. A file that is wrong in itself never
 * comes this far; see config.ts. Looks, and changes nothing.
 */
import { access, constants, stat } from 'node:fs/promises';
import { stringify } from 'yaml';
import { groupId } from '../native/index.ts';
import type { Config } from './config.ts';

export interface ConfigReport {
  /** For people, with the settings in force. */
  readonly text: string;
  /** Whether a daemon would start by it. */
  readonly fits: boolean;
}

const isProgram = async (path: string): Promise<boolean> => {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
};

const isDirectoryOrMissing = async (path: string): Promise<boolean> => {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT';
  }
};

/** The daemon starts without these; guests that need them do not. */
const warningsOf = async ({ qemu, socket }: Config): Promise<readonly string[]> => {
  const warnings: string[] = [];
  for (const [name, path] of Object.entries(qemu.binaries))
    if (!(await isProgram(path))) warnings.push(`qemu.binaries.${name}: ${path} is no program on this host`);
  if (!(await isProgram(qemu.virtiofsd)))
    warnings.push(
      `qemu.virtiofsd: ${qemu.virtiofsd} is no program on this host; guests get no directories of it`,
    );
  if (groupId(socket.group) === undefined)
    warnings.push(`socket.group: there is no group ${socket.group}; root alone may use the socket`);
  return warnings;
};

const errorsOf = async ({ stateDirectory, runDirectory }: Config): Promise<readonly string[]> => {
  const errors: string[] = [];
  for (const [name, path] of Object.entries({ stateDirectory, runDirectory }))
    if (!(await isDirectoryOrMissing(path))) errors.push(`${name}: ${path} is no directory`);
  return errors;
};

/** The settings in the form of the file. */
const asFile = (config: Config): string => {
  const { listen } = config.websocket;
  const websocket = listen === undefined ? {} : { listen: `${listen.host}:${listen.port}` };
  return stringify({ ...config, websocket }).trimEnd();
};

export const checkConfig = async (path: string, config: Config): Promise<ConfigReport> => {
  const [errors, warnings] = await Promise.all([errorsOf(config), warningsOf(config)]);
  const verdict = errors.length === 0 ? 'can be used' : 'cannot be used';
  const lines = [
    ...errors.map((line) => `error: ${line}`),
    ...warnings.map((line) => `warning: ${line}`),
    `${path} ${verdict}. The settings in force:`,
    '',
    asFile(config),
  ];
  return { text: `${lines.join('\n')}\n`, fits: errors.length === 0 };
};

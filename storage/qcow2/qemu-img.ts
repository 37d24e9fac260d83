/**
 * The calls of qemu-img that storage makes, each with its format named: nothing is probed, no backing file followed.
 * Bytes of disks go from file to file inside qemu-img; this process sees only progress and verdicts.
 */
import { runTool } from '../../lib/run-tool.ts';
import type { ImageSourceFormat } from '../../protocol/image.ts';
import { type Confinement, confined } from '../files/confined-tool.ts';

export interface ToolRun {
  readonly signal: AbortSignal;
  /** For what strangers wrote; absent for our own. */
  readonly confinement?: Confinement | undefined;
  /** Longest file that the tool may write, 0 unless given; enforced only together with `confinement`. */
  readonly maxFileBytes?: number;
  readonly onStdout?: (text: string) => void;
  /**
   * Where the tool works, `/` unless given. It is entered before an identity is taken: paths relative to it can be reached
   * also where a directory above, as /root, lets strangers through to nothing.
   */
  readonly cwd?: string;
}

const FALLBACK_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Of the environment only what qemu-img needs: the identity is a stranger's to run. */
const confinedQemuImg = (confinement: Confinement, maxFileBytes: number): [string, ...string[]] => {
  const environment = ['-i', `PATH=${process.env['PATH'] ?? FALLBACK_PATH}`, 'LC_ALL=C'];
  return confined(['/usr/bin/env', ...environment, 'qemu-img'], confinement, maxFileBytes);
};

/** In the C locale, because what it says is read. */
const qemuImg = async (args: readonly string[], run: ToolRun): Promise<void> => {
  const { confinement, maxFileBytes = 0, onStdout, signal } = run;
  const [file, ...before] = confinement
    ? confinedQemuImg(confinement, maxFileBytes)
    : (['qemu-img'] as const);
  await runTool([file, ...before, ...args], {
    signal,
    cwd: run.cwd ?? '/',
    env: { LC_ALL: 'C' },
    timeoutMs: 0,
    ...(onStdout === undefined ? {} : { onStdout }),
  });
};

/** Formats that can name another image below themselves. */
const layered: ReadonlySet<ImageSourceFormat> = new Set(['qcow2', 'vmdk']);

/** One file and nothing behind it. */
const loneImage = (format: ImageSourceFormat, path: string): string =>
  `json:${JSON.stringify({
    driver: format,
    file: { driver: 'file', filename: path },
    ...(layered.has(format) ? { backing: null } : {}),
  })}`;

export interface NewOverlay {
  readonly path: string;
  readonly sizeBytes: number;
  /** `name` stands in the header for people only: each launch names the chain itself. */
  readonly backing?: { readonly name: string; readonly format: 'qcow2' | 'raw' };
}

/** Makes an empty qcow2 file; `-u`: without opening its backing file. */
export const createQcow2 = async (overlay: NewOverlay, run: ToolRun): Promise<void> => {
  const { backing } = overlay;
  const under = backing === undefined ? [] : ['-u', '-F', backing.format, '-b', backing.name];
  await qemuImg(['create', '-q', '-f', 'qcow2', ...under, overlay.path, `${overlay.sizeBytes}`], run);
};

/** Lets a qcow2 file grow, whatever its header says of a backing file; refuses to shrink it. */
export const resizeQcow2 = async (
  file: { readonly path: string; readonly sizeBytes: number },
  run: ToolRun,
): Promise<void> => {
  await qemuImg(['resize', '-q', loneImage('qcow2', file.path), `${file.sizeBytes}`], run);
};

/**
 * Reads the metadata of an image that is not raw and holds it against the file: convert takes what lies beyond the end of a
 * truncated file for zeros, without a word. Throws ExecError with exit code 2 for a damaged image.
 */
export const checkImage = async (format: ImageSourceFormat, path: string, run: ToolRun): Promise<void> => {
  await qemuImg(['check', '-q', loneImage(format, path)], run);
};

const percentages = /\(\s*(\d+(?:\.\d+)?)\/100%\)/g;

/** The last percentage in what `qemu-img -p` said, `    (12.34/100%)\r`. */
export const lastPercentage = (text: string): number | undefined => {
  const last = [...text.matchAll(percentages)].at(-1)?.[1];
  return last === undefined ? undefined : Number(last);
};

export interface Conversion {
  readonly from: { readonly format: ImageSourceFormat; readonly path: string };
  /** A new qcow2 file. */
  readonly to: string;
  /** Gets the part done, from 0 to 1, never falling. */
  readonly onFraction: (fraction: number) => void;
}

/** Copies what a guest would read into a fresh qcow2 file. */
export const convertToQcow2 = async (conversion: Conversion, run: ToolRun): Promise<void> => {
  let heard = '';
  let told = 0;
  const onStdout = (text: string): void => {
    heard = (heard + text).slice(-64);
    const percentage = lastPercentage(heard);
    if (percentage === undefined || percentage <= told) return;
    told = Math.min(percentage, 100);
    conversion.onFraction(told / 100);
  };
  const { from, to } = conversion;
  await qemuImg(['convert', '-p', '-O', 'qcow2', loneImage(from.format, from.path), to], {
    ...run,
    onStdout,
  });
};

/** Memory of the host, and whether one more guest fits into it. */

import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { RoostError } from '../protocol/errors.ts';

export interface HostMemory {
  readonly totalBytes: number;
  /** What can be had without swapping, by the kernel's own estimate. */
  readonly availableBytes: number;
}

/** Parses /proc/meminfo (proc(5)); sizes there are in KiB. */
export const parseMeminfo = (text: string): HostMemory => {
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return { totalBytes: field('MemTotal'), availableBytes: field('MemAvailable') };
};

/** All that it says is in the first 2 KiB or so. */
const MEMINFO_BYTES = 16 * 1024;
let meminfo: Promise<FileHandle> | undefined;

/** Every start asks; a file that stays open is read in one step instead of five. */
export const readHostMemory = async (): Promise<HostMemory> => {
  meminfo ??= open('/proc/meminfo', 'r');
  const file = await meminfo;
  const { buffer, bytesRead } = await file.read(Buffer.alloc(MEMINFO_BYTES), 0, MEMINFO_BYTES, 0);
  return parseMeminfo(buffer.toString('latin1', 0, bytesRead));
};

export interface MemoryDemand {
  readonly guest: string;
  readonly neededBytes: number;
  /** Promised to other guests that have a process or are about to. */
  readonly committedBytes: number;
  /** Kept for the host itself. */
  readonly reserveBytes: number;
}

/** A size of memory in words, as an error tells it. */
export const mib = (bytes: number): string => `${Math.round(bytes / (1024 * 1024))} MiB`;

/** Errors: ResourceExhausted with the numbers when the guest does not fit. */
export const admitMemory = (memory: HostMemory, demand: MemoryDemand): void => {
  const promisable = Math.max(0, memory.totalBytes - demand.reserveBytes - demand.committedBytes);
  const free = Math.min(promisable, memory.availableBytes);
  if (demand.neededBytes <= free) return;
  throw new RoostError(
    'ResourceExhausted',
    `Guest ${demand.guest} needs ${mib(demand.neededBytes)} of memory and the host can give ${mib(free)}`,
    {
      data: {
        neededBytes: demand.neededBytes,
        freeBytes: free,
        totalBytes: memory.totalBytes,
        availableBytes: memory.availableBytes,
        committedBytes: demand.committedBytes,
        reserveBytes: demand.reserveBytes,
      },
      hint: 'Stop another guest, or give this one less memory.',
    },
  );
};

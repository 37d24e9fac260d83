/** How fast the host's time stamp counter ticks; under TCG a guest's ticks as fast. */
import { readFile } from 'node:fs/promises';

/** Where the host does not tell; a guest's kernel refines it. */
const USUAL_KHZ = 2_000_000;

/** Ticks in a millisecond, by /proc/cpuinfo (proc(5)): what the processor runs at, which is what KVM and TCG go by. */
export const tscKhz = async (): Promise<number> => {
  const cpuinfo = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  const mhz = Number(/^cpu MHz\s*: ([\d.]+)$/m.exec(cpuinfo)?.[1]);
  return mhz > 0 ? Math.round(mhz * 1000) : USUAL_KHZ;
};

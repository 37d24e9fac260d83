/** Ports of the host that somebody has: from the kernel's own tables (proc(5), /proc/net/tcp and its like). */
import { readFile } from 'node:fs/promises';

const TABLES = ['tcp', 'tcp6', 'udp', 'udp6'] as const;

/** Local ports of a table: `  0: 0100007F:4E20 00000000:0000 0A …`, in hexadecimal. */
export function localPorts(table: string): readonly number[] {
  return table.split('\n').flatMap((line) => {
    const port = /^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) /.exec(line)?.[1];
    return port === undefined ? [] : [Number.parseInt(port, 16)];
  });
}

/** A table that is not there, as those of IPv6 may be, counts as empty. */
export async function portsInUse(): Promise<ReadonlySet<number>> {
  const tables = await Promise.all(
    TABLES.map((table) => readFile(`/proc/net/${table}`, 'utf8').catch(() => '')),
  );
  return new Set(tables.flatMap(localPorts));
}

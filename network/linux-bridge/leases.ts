/**
 * Leases that a network's DHCP server gave (dnsmasq(8), `--dhcp-leasefile`): it rewrites the file in place with each
 * lease that is taken or renewed. A line: expiry in seconds, MAC address, IP address, name, client id.
 */
import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import type { Site } from './site.ts';

export interface Lease {
  readonly mac: string;
  readonly address: string;
  /** Milliseconds since the epoch; whole seconds. */
  readonly expiresAt: number;
}

/** What the server lends an address for; a guest may ask for less. */
export const LEASE_SECONDS = 3600;

/** Lines that are no IPv4 lease are passed over: the server's own identity, a line half written. */
export function parseLeases(text: string): readonly Lease[] {
  return text.split('\n').flatMap((line) => {
    const [expiry = '', mac = '', address = ''] = line.split(' ');
    if (!/^\d{1,12}$/.test(expiry) || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) return [];
    return /^\d{1,3}(\.\d{1,3}){3}$/.test(address)
      ? [{ mac, address, expiresAt: Number(expiry) * 1000 }]
      : [];
  });
}

/** All leases; none before the server has written its file. */
export async function readLeases(site: Pick<Site, 'leaseFile'>): Promise<readonly Lease[]> {
  return parseLeases(await readFile(site.leaseFile, 'utf8').catch(() => ''));
}

/** Calls back whenever the leases may have changed, until the returned function is called. */
export function watchLeases(site: Pick<Site, 'leaseFile'>, changed: () => void): () => void {
  const name = basename(site.leaseFile);
  let watcher: FSWatcher;
  try {
    // The directory, because the file itself may not be there yet.
    watcher = watch(dirname(site.leaseFile), (_event, file) => {
      if (file === null || file === name) changed();
    });
  } catch {
    // A network that is broken has no leases to tell of.
    return () => undefined;
  }
  watcher.on('error', () => watcher.close());
  watcher.unref();
  return () => watcher.close();
}

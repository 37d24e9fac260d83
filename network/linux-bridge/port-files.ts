/**
 * What the DHCP and DNS server knows of a port: two files that it takes up by inotify (dnsmasq(8), `--dhcp-hostsdir`,
 * `--hostsdir`); once they are removed it has to be told. They lie there while the port is attached.
 */
import { chmod, mkdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { PortSpec } from '../backend.ts';
import type { Site } from './site.ts';

/** Readable by the server's user, whatever the umask. */
const DIRECTORY_MODE = 0o755;
const FILE_MODE = 0o644;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

export async function makePortDirectories(site: Site): Promise<void> {
  const directories = [site.portsDirectory, site.dhcpDirectory, site.namesDirectory];
  await mkdir(dirname(site.portsDirectory), { recursive: true });
  for (const directory of directories) await mkdir(directory, { recursive: true });
  for (const directory of [dirname(site.portsDirectory), ...directories])
    await chmod(directory, DIRECTORY_MODE);
}

export async function removePortDirectories(site: Site): Promise<void> {
  await rm(site.portsDirectory, { recursive: true, force: true });
  // The directory above is every instance's; it goes with the last.
  await rmdir(dirname(site.portsDirectory)).catch(() => undefined);
}

export async function writePortFiles(site: Site, port: PortSpec): Promise<void> {
  const { ipv4, guestName } = port;
  if (ipv4 === undefined || guestName === undefined) return;
  const former = await formerHolders(site, port);
  await Promise.all([
    replace(site.dhcpDirectory, port, `${[port.mac, ...former, ipv4, guestName].join(',')}\n`),
    replace(site.namesDirectory, port, `${ipv4} ${guestName}\n`),
  ]);
}

/**
 * MAC addresses that the server has leased the port's address to. A guest that is gone did not give its lease back, and
 * until that ends the server keeps the address for it; unless both belong to one host (dnsmasq(8), `--dhcp-host`: "the
 * lease is abandoned"). A line of the leases: expiry, MAC address, IP address, name, client id.
 */
async function formerHolders(site: Site, port: PortSpec): Promise<readonly string[]> {
  const leases = await readFile(site.leaseFile, 'utf8').catch(() => '');
  return leases.split('\n').flatMap((line) => {
    const [, mac, ipv4] = line.split(' ');
    return mac !== undefined && ipv4 === port.ipv4 && mac !== port.mac && MAC.test(mac) ? [mac] : [];
  });
}

export async function removePortFiles(site: Site, port: PortSpec): Promise<void> {
  await Promise.all(
    [site.dhcpDirectory, site.namesDirectory].map((directory) =>
      rm(join(directory, fileName(port)), { force: true }),
    ),
  );
}

/** By MAC address: a guest may have two NICs in one network under one name. */
const fileName = (port: PortSpec): string => port.mac.replaceAll(':', '-');

/** The server reads a file when it appears, so it must appear whole. It passes over names that begin with a dot. */
async function replace(directory: string, port: PortSpec, text: string): Promise<void> {
  const draft = join(directory, `.${fileName(port)}`);
  await writeFile(draft, text, { mode: FILE_MODE });
  await chmod(draft, FILE_MODE);
  await rename(draft, join(directory, fileName(port)));
}

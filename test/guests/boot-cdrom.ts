/**
 * A boot sector on a CD: the least that a BIOS boots from one (El Torito specification 1.0, sections 2 and 4), without
 * a file system.
 */
import { type BootSectorBehaviour, bootSector } from './boot-sector.ts';

const SECTOR = 2048;
const BOOT_RECORD = 17;
const CATALOG = 19;
const BOOT_IMAGE = 20;

/** Words of the validation entry add up to zero. */
const checksum = (entry: Buffer): number => {
  let sum = 0;
  for (let at = 0; at < 32; at += 2) sum += entry.readUInt16LE(at);
  return (0x1_0000 - (sum & 0xffff)) & 0xffff;
};

const validationEntry = (): Buffer => {
  const entry = Buffer.alloc(32);
  entry[0] = 1;
  entry[0x1e] = 0x55;
  entry[0x1f] = 0xaa;
  entry.writeUInt16LE(checksum(entry), 0x1c);
  return entry;
};

/** Bootable, no emulation, one sector of 512 bytes, loaded where a disk's would be. */
const initialEntry = (): Buffer => {
  const entry = Buffer.alloc(32);
  entry[0] = 0x88;
  entry.writeUInt16LE(1, 6);
  entry.writeUInt32LE(BOOT_IMAGE, 8);
  return entry;
};

export const bootSectorIso = (behaviour: BootSectorBehaviour): Buffer => {
  const disc = Buffer.alloc(SECTOR * (BOOT_IMAGE + 1));
  // The primary volume descriptor and the end of the list, for whoever looks for them.
  disc.write('\u0001CD001\u0001', (BOOT_RECORD - 1) * SECTOR, 'latin1');
  disc.write('\u00ffCD001\u0001', (BOOT_RECORD + 1) * SECTOR, 'latin1');
  disc.write('\u0000CD001\u0001EL TORITO SPECIFICATION', BOOT_RECORD * SECTOR, 'latin1');
  disc.writeUInt32LE(CATALOG, BOOT_RECORD * SECTOR + 0x47);
  validationEntry().copy(disc, CATALOG * SECTOR);
  initialEntry().copy(disc, CATALOG * SECTOR + 32);
  bootSector(behaviour).copy(disc, BOOT_IMAGE * SECTOR);
  return disc;
};

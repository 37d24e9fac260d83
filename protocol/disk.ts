/** Disks as they lie on the host: a disk of a guest is a chain of files, its own on top. */
import { z } from 'zod';
import { byteCount, deviceName } from './types.ts';

export const diskFile = z.strictObject({
  path: z.string(),
  format: z.enum(['qcow2', 'raw']),
  sizeBytes: byteCount.describe('Virtual size'),
  allocatedBytes: byteCount
    .optional()
    .describe('Bytes it takes on the host; absent when the file is missing'),
});
export type DiskFile = z.infer<typeof diskFile>;

export const diskUse = z.strictObject({
  guest: z.string().describe('Name of the guest whose disk it is'),
  name: deviceName,
  attached: z.boolean().describe('False for a disk that was detached and kept'),
  readOnly: z.boolean(),
  sizeBytes: byteCount.describe('Size the guest sees'),
  image: z.string().optional().describe('Id of the image under it'),
  serial: z.string().describe('Serial number the guest sees'),
  files: z.array(diskFile).describe("The disk's own file, then what lies under it"),
});
export type DiskUse = z.infer<typeof diskUse>;

/**
 * OCI images: what of them is shown, and what their config says of the program to run. Names and meanings are those of
 * the OCI image specification 1.1, config.md, in our spelling; `healthcheck` is Docker's.
 */
import { z } from 'zod';
import { durationMs } from './types.ts';

/** `linux/amd64`, `linux/arm64/v8`. */
export const ociPlatform = z
  .string()
  .max(64)
  .regex(
    /^[a-z0-9]+\/[a-z0-9_]+(\/[a-z0-9.]+)?$/,
    'must be OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as linux/amd64',
  );

export const ociFacts = z.strictObject({
  digest: z.string().describe('Of the manifest, which names all that is in the image'),
  platform: ociPlatform,
  reference: z.string().optional().describe('Where it was pulled from, whole'),
  layers: z.int().nonnegative(),
});
export type OciFacts = Readonly<z.infer<typeof ociFacts>>;

export const ociHealthcheck = z.strictObject({
  test: z.array(z.string()).describe('NONE, or CMD or CMD-SHELL and its arguments; empty: inherited'),
  intervalMs: durationMs.optional(),
  timeoutMs: durationMs.optional(),
  startPeriodMs: durationMs.optional(),
  retries: z.int().nonnegative().optional(),
});

/** What the image's maker wants run, and how. */
export const ociConfig = z.strictObject({
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()).describe('Arguments to the entrypoint; without one, program and arguments'),
  env: z.array(z.string()).describe('As NAME=VALUE'),
  user: z.string().optional().describe('USER, USER:GROUP, by name or number; root unless given'),
  workingDir: z.string().optional(),
  exposedPorts: z.array(z.string()).describe('As 80/tcp'),
  volumes: z.array(z.string()).describe('Directories that hold data'),
  labels: z.record(z.string(), z.string()),
  stopSignal: z.string().optional(),
  healthcheck: ociHealthcheck.optional(),
});
export type OciConfig = Readonly<z.infer<typeof ociConfig>>;

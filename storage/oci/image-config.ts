/**
 * The config of an image, as its maker wrote it and as we tell it. Pure.
 * Source: OCI image specification 1.1, config.md; Docker's image specification 1.2 for Healthcheck.
 */
import { z } from 'zod';
import type { OciConfig } from '../../protocol/oci.ts';
import { type Digest, digest } from './digest.ts';
import { malformed, type Platform, parseJson } from './manifest.ts';

const strings = z.array(z.string()).nullish();
const keys = z.record(z.string(), z.unknown()).nullish();
/** Nanoseconds, as Go counts time. */
const nanoseconds = z.number().nonnegative().nullish();

const runForm = z.object({
  User: z.string().nullish(),
  ExposedPorts: keys,
  Env: strings,
  Entrypoint: strings,
  Cmd: strings,
  Volumes: keys,
  WorkingDir: z.string().nullish(),
  Labels: z.record(z.string(), z.string()).nullish(),
  StopSignal: z.string().nullish(),
  Healthcheck: z
    .object({
      Test: strings,
      Interval: nanoseconds,
      Timeout: nanoseconds,
      StartPeriod: nanoseconds,
      Retries: z.int().nonnegative().nullish(),
    })
    .nullish(),
});

const configForm = z.object({
  os: z.string().max(64),
  architecture: z.string().max(64),
  variant: z.string().max(64).nullish(),
  config: runForm.nullish(),
  rootfs: z.object({ type: z.literal('layers'), diff_ids: z.array(digest).nullish() }),
});

export interface ImageConfig {
  readonly platform: Platform;
  /** Digests of the layers' archives, unpacked, the lowest first. */
  readonly diffIds: readonly Digest[];
  readonly config: OciConfig;
}

/** Longest config that is told on the wire, whose values end at 1 MiB. */
const MAX_CONFIG_CHARACTERS = 512 * 1024;

const milliseconds = (value: number | null | undefined): number | undefined =>
  typeof value === 'number' && value > 0 ? Math.round(value / 1e6) : undefined;

const healthcheckOf = (found: z.infer<typeof runForm>['Healthcheck']): OciConfig['healthcheck'] => {
  if (!found) return undefined;
  return {
    test: found.Test ?? [],
    intervalMs: milliseconds(found.Interval),
    timeoutMs: milliseconds(found.Timeout),
    startPeriodMs: milliseconds(found.StartPeriod),
    retries: found.Retries ?? undefined,
  };
};

/** Go writes what is not set as an empty text. */
const set = (value: string | null | undefined): string | undefined => (value ? value : undefined);

const told = (run: z.infer<typeof runForm>): OciConfig => ({
  entrypoint: run.Entrypoint ?? [],
  cmd: run.Cmd ?? [],
  env: run.Env ?? [],
  user: set(run.User),
  workingDir: set(run.WorkingDir),
  exposedPorts: Object.keys(run.ExposedPorts ?? {}),
  volumes: Object.keys(run.Volumes ?? {}),
  labels: run.Labels ?? {},
  stopSignal: set(run.StopSignal),
  healthcheck: healthcheckOf(run.Healthcheck),
});

/** Errors: InvalidArgument. */
export const parseImageConfig = (bytes: Uint8Array): ImageConfig => {
  const found = configForm.safeParse(parseJson(bytes, 'its config'));
  if (!found.success) {
    const [issue] = found.error.issues;
    throw malformed(`its config is malformed (${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''})`);
  }
  const { os, architecture, variant, config, rootfs } = found.data;
  // Without the members that are not set.
  const run = JSON.parse(JSON.stringify(told(config ?? {}))) as OciConfig;
  if (JSON.stringify(run).length > MAX_CONFIG_CHARACTERS) throw malformed('its config is too long');
  return {
    platform: { os, architecture, ...(set(variant) === undefined ? {} : { variant: set(variant) }) },
    diffIds: rootfs.diff_ids ?? [],
    config: run,
  };
};

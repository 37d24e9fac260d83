/** Digests by which everything in an image names everything else. Source: OCI image specification 1.1, descriptor.md. */
import { z } from 'zod';
import { RoostError } from '../../protocol/errors.ts';
import { digestOf } from '../images/image-source.ts';

/** `sha256:` or `sha512:`, and as many lower-case hexadecimal digits as belong to it. */
export const digest = z
  .string()
  .regex(/^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/, 'must be a SHA-256 or SHA-512 digest')
  .brand<'Digest'>();
export type Digest = z.infer<typeof digest>;

export interface DigestParts {
  readonly algorithm: 'sha256' | 'sha512';
  readonly hex: string;
}

export const digestParts = (value: Digest): DigestParts => {
  const [algorithm, hex = ''] = value.split(':');
  return { algorithm: algorithm === 'sha512' ? 'sha512' : 'sha256', hex };
};

/** Errors: InvalidArgument when the file has another digest; `what` is the subject of the message. */
export const refuseOtherDigest = async (
  path: string,
  expected: Digest,
  what: string,
  signal: AbortSignal,
): Promise<void> => {
  const { algorithm, hex } = digestParts(expected);
  const actual = await digestOf(path, algorithm, signal);
  if (actual === hex) return;
  throw new RoostError(
    'InvalidArgument',
    `The image is not taken: ${what} has another digest than it should`,
    {
      data: { flaw: 'digest', expected, actual: `${algorithm}:${actual}` },
      hint: 'It was damaged on its way or at its source: try again, and mistrust the source if it stays so.',
    },
  );
};

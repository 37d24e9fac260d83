/** What becomes of a download after an attempt: a table over curl's exit codes and HTTP's status. Pure. */
import { type ErrorClass, RoostError } from '../../../protocol/errors.ts';
import type { FetchEnd } from './curl.ts';

export type Verdict =
  | { readonly kind: 'complete' }
  /** The rest can be asked for. */
  | { readonly kind: 'again' }
  /** What is there is of no use: from the first byte. */
  | { readonly kind: 'anew' }
  | { readonly kind: 'give-up'; readonly error: RoostError };

/** curl(1), "EXIT CODES". */
const exits = {
  badProtocol: 1,
  badUrl: 3,
  badProxy: 5,
  badHost: 6,
  refused: 7,
  httpError: 22,
  writeError: 23,
  rangeIgnored: 33,
  tooManyRedirects: 47,
  badCertificate: 60,
  tooLarge: 63,
  badAuthorities: 77,
} as const;

/** The network's moods: HTTP/2 errors, timeouts, resets, bodies cut short. */
const passing: ReadonlySet<number> = new Set([16, 18, 28, 35, 52, 55, 56, 92, 95, 96]);
/** RFC 9110, 15.5.9 and 15.6; RFC 6585 (429). */
const passingStatus: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);
const RANGE_NOT_SATISFIABLE = 416;

const failure = (
  errorClass: ErrorClass,
  shownAs: string,
  end: FetchEnd,
  why: string,
  hint: string,
): RoostError =>
  new RoostError(errorClass, `Could not download ${shownAs}: ${why}`, {
    data: { url: shownAs, curl: end.exitCode, status: end.status, message: end.message },
    hint,
  });

const refusal = (shownAs: string, end: FetchEnd): RoostError => {
  const why = `the server answers ${end.status}`;
  if (end.status === 404 || end.status === 410)
    return failure('NotFound', shownAs, end, why, 'Check the URL.');
  if (passingStatus.has(end.status)) return failure('Unavailable', shownAs, end, why, 'Try again later.');
  const hint =
    end.status === 401 || end.status === 403
      ? 'Name and password can stand in the URL, as https://NAME:PASSWORD@HOST/…; they are not kept.'
      : 'Check the URL.';
  return failure('InvalidArgument', shownAs, end, why, hint);
};

/** Why there is no use in another attempt. */
export const reasonToGiveUp = (shownAs: string, end: FetchEnd): RoostError => {
  const { message } = end;
  switch (end.exitCode) {
    case exits.httpError:
      return refusal(shownAs, end);
    case exits.badProtocol:
      return failure(
        'InvalidArgument',
        shownAs,
        end,
        'it leads to another protocol',
        'From https only https is followed unless a digest is given: give one, or the URL that it leads to.',
      );
    case exits.badUrl:
    case exits.tooManyRedirects:
      return failure('InvalidArgument', shownAs, end, message, 'Check the URL.');
    case exits.badCertificate:
    case exits.badAuthorities:
      return failure(
        'InvalidArgument',
        shownAs,
        end,
        message,
        'Give the certificate authority of the server with the import, or install it on the host.',
      );
    case exits.tooLarge:
      return failure(
        'ResourceExhausted',
        shownAs,
        end,
        'it is larger than an image may be here',
        'Free space in the state directory, if it is not the URL that is wrong.',
      );
    case exits.writeError:
      return failure('HostError', shownAs, end, message, 'Mend what the message names, then try again.');
    default:
      return failure(
        'Unavailable',
        shownAs,
        end,
        message,
        'Check that the host reaches the server, then try again.',
      );
  }
};

/** `hasBytes`: whether anything of the file was ever got; what cannot be reached at all is told at once. */
export const verdictOn = (end: FetchEnd, hasBytes: boolean, shownAs: string): Verdict => {
  switch (end.exitCode) {
    case 0:
      return { kind: 'complete' };
    case exits.rangeIgnored:
      return { kind: 'anew' };
    case exits.httpError:
      if (end.status === RANGE_NOT_SATISFIABLE && hasBytes) return { kind: 'anew' };
      if (passingStatus.has(end.status)) return { kind: 'again' };
      break;
    case exits.badProxy:
    case exits.badHost:
    case exits.refused:
      if (hasBytes) return { kind: 'again' };
      break;
    default:
      if (passing.has(end.exitCode)) return { kind: 'again' };
  }
  return { kind: 'give-up', error: reasonToGiveUp(shownAs, end) };
};

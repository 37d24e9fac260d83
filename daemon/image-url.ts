/** The URL of an image: what is asked for, and what of it anybody may see. Pure. */
import { RoostError } from '../protocol/errors.ts';

export interface ImageUrl {
  /** As it is asked for. */
  readonly url: string;
  /** Without user, password, query and fragment: a query may well be a key. */
  readonly shownAs: string;
}

/** Errors: InvalidArgument, without the text: it may hold a password. */
export const parseImageUrl = (text: string): ImageUrl => {
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed?.protocol !== 'http:' && parsed?.protocol !== 'https:')
    throw new RoostError('InvalidArgument', 'That is no http or https URL', {
      hint: 'Give it as https://HOST/PATH; what is special in a password has to be percent-encoded.',
    });
  parsed.hash = '';
  return { url: parsed.href, shownAs: `${parsed.origin}${parsed.pathname}` };
};

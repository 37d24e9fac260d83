/**
 * Reads what curl writes with --dump-header: the heads of all responses, one after another, redirects first. Pure.
 * Source: RFC 9110, sections 8.8 (validators), 13.1.5 (If-Range) and 14.4 (Content-Range).
 */

export interface ResponseHead {
  readonly status: number;
  /** By lower-case name; of a repeated one the last, but WWW-Authenticate, whose values are joined by commas. */
  readonly fields: ReadonlyMap<string, string>;
}

/** Longer ones are of no use: they would have to be sent back. */
const MAX_VALIDATOR_LENGTH = 512;

const CHALLENGE = 'www-authenticate';
const startLine = /^HTTP\/\d+(?:\.\d+)? (\d{3})(?: |$)/;

/** The last complete head in the text; undefined when there is none. */
export const lastHead = (text: string): ResponseHead | undefined => {
  // An empty line ends a head; what comes after the last one is a head that was cut off.
  const head = text
    .split(/\r?\n\r?\n/)
    .slice(0, -1)
    .at(-1);
  const [first = '', ...lines] = (head ?? '').split(/\r?\n/);
  const status = startLine.exec(first)?.[1];
  if (status === undefined) return undefined;
  const fields = lines.flatMap((line) => {
    const colon = line.indexOf(':');
    return colon <= 0 ? [] : [[line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const];
  });
  const challenges = fields.filter(([name]) => name === CHALLENGE).map(([, value]) => value);
  const joined = challenges.length > 1 ? [[CHALLENGE, challenges.join(', ')] as const] : [];
  return { status: Number(status), fields: new Map([...fields, ...joined]) };
};

const count = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;

/** Bytes of the whole file, if the response says so. */
export const totalBytesOf = ({ status, fields }: ResponseHead): number | undefined =>
  status === 206
    ? count(/^bytes \d+-\d+\/(\d+)$/.exec(fields.get('content-range') ?? '')?.[1])
    : count(fields.get('content-length'));

const isPlain = (text: string): boolean => text.length <= MAX_VALIDATOR_LENGTH && /^[\x20-\x7e]+$/.test(text);

/**
 * What the rest of the same file can be asked for by, a value of If-Range: a strong entity tag, else a date of the last
 * change that is at least a second before the response (RFC 9110, 8.8.2.2). Undefined: it has to be fetched anew.
 */
export const validatorOf = ({ fields }: ResponseHead): string | undefined => {
  const tag = fields.get('etag');
  if (tag !== undefined && /^"[^"]*"$/.test(tag) && isPlain(tag)) return tag;
  const changed = fields.get('last-modified');
  const age = Date.parse(fields.get('date') ?? '') - Date.parse(changed ?? '');
  return changed !== undefined && age >= 1000 && isPlain(changed) ? changed : undefined;
};

/** Whether a part belongs to the file that was begun. */
export const continues = (part: ResponseHead, begun: ResponseHead): boolean =>
  part.status === 206 &&
  totalBytesOf(part) === (totalBytesOf(begun) ?? totalBytesOf(part)) &&
  (part.fields.get('etag') ?? begun.fields.get('etag')) === begun.fields.get('etag');

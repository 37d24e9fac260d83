/**
 * One attempt to fetch a file over HTTP, by curl: the bytes go from its socket to the file, never through this process.
 * The URL may hold credentials; it reaches curl by standard input, so that no list of processes, journal or log has it.
 * Proxies and certificate authorities are those of the daemon's environment and of the host.
 */
import { ExecError } from '../../../lib/exec-result.ts';
import { runTool } from '../../../lib/run-tool.ts';
import { type Confinement, confined } from '../../files/confined-tool.ts';

export interface Fetch {
  readonly url: string;
  /** Where curl works; all other paths are names in it. */
  readonly directory: string;
  readonly file: string;
  /** Gets the heads of the responses. */
  readonly heads: string;
  /** Bytes that are there already, and the value of If-Range that says of which file, if it takes one. */
  readonly rest?: { readonly from: number; readonly validator?: string | undefined } | undefined;
  /** Name of a file with certificate authorities in PEM. */
  readonly authorities?: string | undefined;
  readonly maxBytes: number;
  /** Whether a redirect may lead from https to http. */
  readonly allowPlainRedirect: boolean;
  /** Seconds without a byte after which the attempt is given up. */
  readonly stallSeconds: number;
  /** Further fields of the request, as `Name: value`; those of authorization go to the URL's own host alone. */
  readonly headers?: readonly string[] | undefined;
  /** Sent as a form, by POST. */
  readonly form?: string | undefined;
}

/** How an attempt ended. */
export interface FetchEnd {
  /** Of curl(1), "EXIT CODES"; 0 is a complete response. */
  readonly exitCode: number;
  /** Of the last response; 0 when there was none. */
  readonly status: number;
  /** In curl's words, without the URL. */
  readonly message: string;
}

const MAX_REDIRECTS = 10;
const CONNECT_TIMEOUT_SECONDS = 30;
/** The meter writes a line a second for as long as the download takes. */
const MAX_METER_BYTES = 256 * 1024 * 1024;

/** curl(1), "--config": in quotes a backslash takes the next character as it is. */
const quoted = (text: string): string => `"${text.replace(/[\\"]/g, '\\$&')}"`;

const configOf = (fetch: Fetch): string => {
  const lines = [`url = ${quoted(fetch.url)}`];
  if (fetch.rest) {
    lines.push(`continue-at = ${fetch.rest.from}`);
    const { validator } = fetch.rest;
    if (validator !== undefined) lines.push(`header = ${quoted(`If-Range: ${validator}`)}`);
  }
  for (const header of fetch.headers ?? []) lines.push(`header = ${quoted(header)}`);
  if (fetch.form !== undefined) lines.push(`data = ${quoted(fetch.form)}`);
  return `${lines.join('\n')}\n`;
};

const argvOf = (fetch: Fetch): readonly [string, ...string[]] => {
  const redirects = fetch.url.startsWith('https:') && !fetch.allowPlainRedirect ? '=https' : '=http,https';
  return [
    '/usr/bin/env',
    'curl',
    // First, or the user's own configuration would be read.
    '--disable',
    '--config',
    '-',
    '--globoff',
    '--proto',
    '=http,https',
    '--proto-redir',
    redirects,
    '--location',
    '--max-redirs',
    `${MAX_REDIRECTS}`,
    '--fail',
    '--connect-timeout',
    `${CONNECT_TIMEOUT_SECONDS}`,
    '--speed-limit',
    '1',
    '--speed-time',
    `${fetch.stallSeconds}`,
    '--max-filesize',
    `${fetch.maxBytes}`,
    '--suppress-connect-headers',
    '--dump-header',
    fetch.heads,
    '--output',
    fetch.file,
    ...(fetch.authorities === undefined ? [] : ['--cacert', fetch.authorities]),
    '--write-out',
    '%{http_code} %{errormsg}',
  ];
};

const endOf = (exitCode: number, stdout: string): FetchEnd => {
  const [, status = '0', message = ''] = /^(\d{3}) ?(.*)$/s.exec(stdout) ?? [];
  return { exitCode, status: Number(status), message: message.trim() };
};

/** Runs curl. `onTick` is called about once a second while it works. Throws what is curl's own failing, or the signal's reason. */
export const fetchOnce = async (
  fetch: Fetch,
  confinement: Confinement,
  signal: AbortSignal,
  onTick: () => void,
): Promise<FetchEnd> => {
  const [first, ...rest] = argvOf(fetch);
  try {
    const { stdout } = await runTool(confined([first, ...rest], confinement, fetch.maxBytes), {
      signal,
      input: configOf(fetch),
      cwd: fetch.directory,
      env: { LC_ALL: 'C' },
      timeoutMs: 0,
      maxOutputBytes: MAX_METER_BYTES,
      onStderr: onTick,
    });
    return endOf(0, stdout);
  } catch (error) {
    const isCurls = error instanceof ExecError && error.exitCode !== undefined && error.exitCode < 125;
    if (!isCurls) throw error;
    return endOf(error.exitCode ?? 0, error.stdout);
  }
};

/**
 * The formats of user-data that cloud-init knows, told by their first line (docs.cloud-init.io, "User data formats").
 * Pure. cloud-init takes what it does not know for nothing and says so in a log that nobody reads; so it is refused here.
 */
export type UserDataFormat =
  | 'cloud-config'
  | 'cloud-config-archive'
  | 'cloud-config-jsonp'
  | 'script'
  | 'include'
  | 'cloud-boothook'
  | 'part-handler'
  | 'jinja'
  | 'mime';

/** Longer beginnings stand before those that they begin with. */
const beginnings: readonly (readonly [string, UserDataFormat])[] = [
  ['#cloud-config-archive', 'cloud-config-archive'],
  ['#cloud-config-jsonp', 'cloud-config-jsonp'],
  ['#cloud-config', 'cloud-config'],
  ['#cloud-boothook', 'cloud-boothook'],
  ['#part-handler', 'part-handler'],
  ['#include-once', 'include'],
  ['#include', 'include'],
  ['## template: jinja', 'jinja'],
  ['#!', 'script'],
];

const mimeHeader = /^(?:content-type|mime-version|content-transfer-encoding|from |to:|subject:)/i;

/** Undefined for a text that cloud-init would not know. */
export const userDataFormat = (text: string): UserDataFormat | undefined => {
  const line = (text.split('\n', 1)[0] ?? '').trimEnd();
  const known = beginnings.find(([beginning, format]) =>
    format === 'script' || format === 'jinja' || format === 'include'
      ? line.toLowerCase().startsWith(beginning)
      : line === beginning,
  );
  if (known) return known[1];
  return mimeHeader.test(line) ? 'mime' : undefined;
};

export const knownFirstLines: readonly string[] = [
  ...beginnings.map(([beginning]) => beginning),
  'a MIME header',
];

/** QMP messages as they may be kept: what is secret in them is not. Pure. */

/** Members whose value lets somebody in, in commands of QEMU and of its devices. */
const SECRET = /passw|secret|passphrase|token|^(key|cert|cookie)$/i;

export const HIDDEN = '(hidden)';

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The value again, with strings under secret names replaced; `data` too, in an object of type secret. */
export const redact = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(redact);
  if (!isObject(value)) return value;
  const holdsSecret = value['qom-type'] === 'secret';
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => {
      const hide = typeof inner === 'string' && (SECRET.test(name) || (holdsSecret && name === 'data'));
      return [name, hide ? HIDDEN : redact(inner)];
    }),
  );
};

/** QMP messages as they may be kept: what is secret in them is not. Pure. */

/** Members whose value lets somebody in, in commands of QEMU and of its devices. */
const SECRET = /passw|secret|passphrase|token|^(key|cert|cookie)$/i;

export const HIDDEN = '(hidden)';

type Members = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Whether the value of a member is not to be kept: a string under a secret name, or `data` of an object of type secret. */
export const isHidden = (object: Members, name: string): boolean =>
  typeof object[name] === 'string' &&
  (SECRET.test(name) || (name === 'data' && object['qom-type'] === 'secret'));

/** The value again, with what is secret replaced. */
export const redact = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(redact);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name, isHidden(value, name) ? HIDDEN : redact(inner)]),
  );
};

/** Forwarded ports as they are typed: `[[ADDRESS:]PORT:]GUEST-PORT[/PROTOCOL]`. */
import { UnitError } from './units.ts';

const FORM =
  /^(?:(?:(?<address>\d{1,3}(?:\.\d{1,3}){3}):)?(?<host>\d{1,5}):)?(?<guest>\d{1,5})(?:\/(?<protocol>tcp|udp))?$/;

/** Members of the contract's forward; what is not given has its default there. Throws UnitError. */
export const parseForward = (text: string): Readonly<Record<string, string | number>> => {
  const groups = FORM.exec(text)?.groups;
  if (!groups)
    throw new UnitError(
      `'${text}' is not a forwarded port; write it as 8080:80, 127.0.0.1:8080:80, 5353:53/udp, or 22 for a free port of the host`,
    );
  const { address, host, guest, protocol } = groups;
  return {
    ...(protocol === undefined ? {} : { protocol }),
    ...(address === undefined ? {} : { hostAddress: address }),
    ...(host === undefined ? {} : { hostPort: Number(host) }),
    guestPort: Number(guest),
  };
};

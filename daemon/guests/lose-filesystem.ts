/** A directory of the host that nobody serves to a running guest any more: written down, and told. */
import { hostObjectKey } from '../../protocol/host-object.ts';
import type { Guest } from './guest.ts';
import { runObjects } from './launch-of.ts';

/**
 * The guest runs on; whoever in it asks for a file there waits, or gets an error. Told once in each run; with the last of
 * them goes what the ledger has of them.
 */
export const loseFilesystem = (
  guest: Guest,
  { name, at }: { readonly name: string; readonly at: number },
): void => {
  const { record, status, house } = guest;
  const { process } = status;
  const index = record.machine.filesystems?.findIndex((each) => each.name === name) ?? -1;
  const lost = record.spec.filesystems[index];
  if (!process || !lost || process.lostFilesystems?.[name] !== undefined) return;
  const before = runObjects(guest);
  guest.setStatus({ process: { ...process, lostFilesystems: { ...process.lostFilesystems, [name]: at } } });
  const left = new Set(runObjects(guest).map(hostObjectKey));
  const { ledger, db } = house.inventory;
  db.soon(() => {
    for (const object of before) if (!left.has(hostObjectKey(object))) ledger.forget(guest.id, object);
  });
  const { source, target } = lost;
  house.log.warn({ guest: guest.name, source }, 'what serves a directory to a guest has ended');
  guest.tell(
    {
      event: 'GUEST_FILESYSTEM_LOST',
      data: { guest: guest.id, name: guest.name, filesystem: name, source, target },
    },
    at,
  );
};

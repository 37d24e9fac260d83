/** The inventory: one database and its tables. */
import { Database, type OpeningOptions } from './database.ts';
import { type EventRetention, EventTable } from './event-table.ts';
import { GuestTable } from './guest-table.ts';
import { ImageTable } from './image-table.ts';
import { LedgerTable } from './ledger-table.ts';
import { MetaTable } from './meta-table.ts';
import { NetworkTable } from './network-table.ts';
import { OperationTable } from './operation-table.ts';
import { TokenTable } from './token-table.ts';

export interface Inventory {
  readonly db: Database;
  readonly meta: MetaTable;
  readonly guests: GuestTable;
  readonly images: ImageTable;
  readonly networks: NetworkTable;
  readonly operations: OperationTable;
  readonly ledger: LedgerTable;
  readonly events: EventTable;
  readonly tokens: TokenTable;
}

/** Opens the inventory at `path`, migrating it. Errors: FailedPrecondition for a newer one, DataLoss for a damaged one. */
export const openInventory = (
  path: string,
  retention?: EventRetention,
  options?: OpeningOptions,
): Inventory => {
  const db = new Database(path, options);
  return {
    db,
    meta: new MetaTable(db),
    guests: new GuestTable(db),
    images: new ImageTable(db),
    networks: new NetworkTable(db),
    operations: new OperationTable(db),
    ledger: new LedgerTable(db),
    events: new EventTable(db, retention),
    tokens: new TokenTable(db),
  };
};

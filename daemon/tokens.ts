/** Tokens of the WebSocket: made here, kept as hashes, looked up in constant time by hash. */
import { createHash, randomBytes } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import type { CommandReturn } from '../protocol/commands.ts';
import { RoostError } from '../protocol/errors.ts';
import type { Role } from '../protocol/types.ts';
import type { Inventory } from './inventory/inventory.ts';
import type { TokenRecord } from './inventory/token-table.ts';

const SECRET_BYTES = 32;
const PREFIX = 'roost_';

const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');

export class Tokens {
  readonly #inventory: Inventory;
  readonly #clock: Clock;
  readonly #revoked = new Set<(name: string) => void>();

  constructor(inventory: Inventory, clock: Clock) {
    this.#inventory = inventory;
    this.#clock = clock;
  }

  async create(role: Role, wished?: string): Promise<CommandReturn<'token-create'>> {
    const name = wished ?? `${role}-${randomBytes(4).toString('hex')}`;
    const token = `${PREFIX}${randomBytes(SECRET_BYTES).toString('base64url')}`;
    await this.#inventory.db.durably(() => {
      if (this.#inventory.tokens.byName(name))
        throw new RoostError('AlreadyExists', `There is a token called ${name}`, {
          data: { name },
          hint: 'Revoke it first, or choose another name.',
        });
      this.#inventory.tokens.insert({ name, role, createdAt: this.#clock.now() }, hashOf(token));
    });
    return { name, role, token };
  }

  async revoke(name: string): Promise<{ name: string }> {
    const existed = await this.#inventory.db.durably(() => this.#inventory.tokens.delete(name));
    if (!existed)
      throw new RoostError('NotFound', `There is no token called ${name}`, {
        data: { name },
        hint: 'query-tokens lists them.',
      });
    for (const listener of this.#revoked) listener(name);
    return { name };
  }

  /** The token of a secret, if it is one of ours. 256 random bits make guessing and timing the look-up pointless. */
  authenticate(secret: string): TokenRecord | undefined {
    const token = this.#inventory.tokens.byHash(hashOf(secret));
    if (token) this.#inventory.db.soon(() => this.#inventory.tokens.used(token.name, this.#clock.now()));
    return token;
  }

  onRevoked(listener: (name: string) => void): () => void {
    this.#revoked.add(listener);
    return () => this.#revoked.delete(listener);
  }

  all(): CommandReturn<'query-tokens'>['tokens'] {
    return [...this.#inventory.tokens.all()];
  }
}

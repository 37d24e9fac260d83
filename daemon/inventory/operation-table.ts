/** The journal: operations and their steps. */

import type { AccountEntry } from '../../lib/account.ts';
import type { WireError } from '../../protocol/errors.ts';
import type { OperationState, StepState, SubjectKind } from '../../protocol/operation.ts';
import type { Actor, OperationId } from '../../protocol/types.ts';
import type { Database } from './database.ts';
import { storedJson } from './stored-json.ts';

export interface OperationRecord {
  readonly id: OperationId;
  readonly sequence: number;
  readonly kind: string;
  readonly subject: { readonly kind: SubjectKind; readonly id: string; readonly name: string };
  readonly actor: Actor;
  readonly state: OperationState;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly idempotencyKey?: string;
  readonly deadlineAt?: number;
  readonly cancelRequested: boolean;
  readonly createdAt: number;
  readonly startedAt?: number;
  readonly endedAt?: number;
  readonly error?: WireError;
  readonly result?: Readonly<Record<string, unknown>>;
}

export interface StepRecord {
  readonly name: string;
  readonly state: StepState;
  readonly startedAt?: number;
  readonly endedAt?: number;
  /** What it did to the host, its undoing at the end. */
  readonly account?: readonly AccountEntry[];
  /** Why it, or its undoing, failed. */
  readonly error?: string;
}

interface OperationRow {
  id: string;
  sequence: number;
  kind: string;
  subject_kind: SubjectKind;
  subject: string;
  subject_name: string;
  actor: string;
  state: OperationState;
  arguments: string;
  idempotency_key: string | null;
  deadline_at: number | null;
  cancel_requested: number;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
  error: string | null;
  result: string | null;
}

interface StepRow {
  operation: string;
  position: number;
  name: string;
  state: StepState;
  started_at: number | null;
  ended_at: number | null;
  account: string | null;
  error: string | null;
}

const optional = <K extends string, V>(key: K, value: V | null): { [P in K]?: V } =>
  (value === null ? {} : { [key]: value }) as { [P in K]?: V };

const fromRow = (row: OperationRow): OperationRecord => ({
  id: row.id as OperationId,
  sequence: row.sequence,
  kind: row.kind,
  subject: { kind: row.subject_kind, id: row.subject, name: row.subject_name },
  actor: row.actor,
  state: row.state,
  arguments: storedJson(row.arguments) as Record<string, unknown>,
  cancelRequested: row.cancel_requested === 1,
  createdAt: row.created_at,
  ...optional('idempotencyKey', row.idempotency_key),
  ...optional('deadlineAt', row.deadline_at),
  ...optional('startedAt', row.started_at),
  ...optional('endedAt', row.ended_at),
  ...optional('error', row.error === null ? null : (storedJson(row.error) as WireError)),
  ...optional('result', row.result === null ? null : (storedJson(row.result) as Record<string, unknown>)),
});

const fromStepRow = (row: StepRow): StepRecord => ({
  name: row.name,
  state: row.state,
  ...optional('startedAt', row.started_at),
  ...optional('endedAt', row.ended_at),
  ...optional('account', row.account === null ? null : (storedJson(row.account) as AccountEntry[])),
  ...optional('error', row.error),
});

export interface OperationQuery {
  readonly ids?: readonly string[];
  readonly subject?: string;
  readonly states?: readonly OperationState[];
  readonly before?: number;
  readonly limit: number;
}

/** Ended operations that are kept for the questions of people and for idempotency keys. */
const KEPT_OPERATIONS = 20_000;

export class OperationTable {
  readonly #db: Database;
  readonly #insert;
  readonly #write;
  readonly #byId;
  readonly #byKey;
  readonly #unfinished;
  readonly #steps;
  readonly #stepMarks;
  readonly #writeStep;
  readonly #highest;
  readonly #prune;

  constructor(db: Database) {
    this.#db = db;
    this.#insert = db.prepare<[Omit<OperationRow, 'started_at' | 'error' | 'result'>], never>(
      `INSERT INTO operation (id, sequence, kind, subject_kind, subject, subject_name, actor, state, arguments,
         idempotency_key, deadline_at, cancel_requested, created_at, ended_at)
       VALUES (@id, @sequence, @kind, @subject_kind, @subject, @subject_name, @actor, @state, @arguments,
         @idempotency_key, @deadline_at, @cancel_requested, @created_at, @ended_at)`,
    );
    this.#write = db.prepare<
      [string, number | null, number, number | null, number | null, string | null, string | null, string],
      never
    >(
      `UPDATE operation SET state = ?, deadline_at = ?, cancel_requested = ?, started_at = ?, ended_at = ?, error = ?, result = ?
       WHERE id = ?`,
    );
    this.#byId = db.prepare<[string], OperationRow>('SELECT * FROM operation WHERE id = ?');
    this.#byKey = db.prepare<[string], OperationRow>('SELECT * FROM operation WHERE idempotency_key = ?');
    this.#unfinished = db.prepare<[], OperationRow>(
      'SELECT * FROM operation WHERE ended_at IS NULL ORDER BY sequence',
    );
    this.#steps = db.prepare<[string], StepRow>('SELECT * FROM step WHERE operation = ? ORDER BY position');
    this.#stepMarks = db.prepare<[string], StepRow>(
      'SELECT name, state, started_at, ended_at, NULL AS account, NULL AS error FROM step WHERE operation = ? ORDER BY position',
    );
    this.#writeStep = db.prepare<[StepRow], never>(
      `INSERT OR REPLACE INTO step (operation, position, name, state, started_at, ended_at, account, error)
       VALUES (@operation, @position, @name, @state, @started_at, @ended_at, @account, @error)`,
    );
    this.#highest = db.prepare<[], { highest: number | null }>(
      'SELECT max(sequence) AS highest FROM operation',
    );
    this.#prune = db.prepare<[number], never>(
      'DELETE FROM operation WHERE ended_at IS NOT NULL AND sequence <= ?',
    );
  }

  insert(operation: OperationRecord): void {
    this.#insert.run({
      id: operation.id,
      sequence: operation.sequence,
      kind: operation.kind,
      subject_kind: operation.subject.kind,
      subject: operation.subject.id,
      subject_name: operation.subject.name,
      actor: operation.actor,
      state: operation.state,
      arguments: JSON.stringify(operation.arguments),
      idempotency_key: operation.idempotencyKey ?? null,
      deadline_at: operation.deadlineAt ?? null,
      cancel_requested: operation.cancelRequested ? 1 : 0,
      created_at: operation.createdAt,
      ended_at: operation.endedAt ?? null,
    });
    if (operation.sequence % 1000 === 0) this.#prune.run(operation.sequence - KEPT_OPERATIONS);
  }

  write(operation: OperationRecord): void {
    this.#write.run(
      operation.state,
      operation.deadlineAt ?? null,
      operation.cancelRequested ? 1 : 0,
      operation.startedAt ?? null,
      operation.endedAt ?? null,
      operation.error ? JSON.stringify(operation.error) : null,
      operation.result ? JSON.stringify(operation.result) : null,
      operation.id,
    );
  }

  writeStep(id: OperationId, position: number, step: StepRecord): void {
    this.#writeStep.run({
      operation: id,
      position,
      name: step.name,
      state: step.state,
      started_at: step.startedAt ?? null,
      ended_at: step.endedAt ?? null,
      account: step.account === undefined ? null : JSON.stringify(step.account),
      error: step.error ?? null,
    });
  }

  byId(id: string): OperationRecord | undefined {
    const row = this.#byId.get(id);
    return row && fromRow(row);
  }

  byKey(key: string): OperationRecord | undefined {
    const row = this.#byKey.get(key);
    return row && fromRow(row);
  }

  unfinished(): readonly OperationRecord[] {
    return this.#unfinished.all().map(fromRow);
  }

  steps(id: OperationId): readonly StepRecord[] {
    return this.#steps.all(id).map(fromStepRow);
  }

  /** How far they are, without what they did. */
  stepMarks(id: OperationId): readonly StepRecord[] {
    return this.#stepMarks.all(id).map(fromStepRow);
  }

  highestSequence(): number {
    return this.#highest.get()?.highest ?? 0;
  }

  /** Newest first. */
  query(query: OperationQuery): readonly OperationRecord[] {
    const where: string[] = ['1'];
    const values: (string | number)[] = [];
    const oneOf = (column: string, wanted: readonly string[] | undefined): void => {
      if (!wanted) return;
      where.push(`${column} IN (${wanted.map(() => '?').join(', ')})`);
      values.push(...wanted);
    };
    oneOf('id', query.ids);
    oneOf('state', query.states);
    if (query.subject !== undefined) {
      where.push('(subject = ? OR subject_name = ?)');
      values.push(query.subject, query.subject);
    }
    if (query.before !== undefined) {
      where.push('sequence < ?');
      values.push(query.before);
    }
    const sql = `SELECT * FROM operation WHERE ${where.join(' AND ')} ORDER BY sequence DESC LIMIT ?`;
    return this.#db
      .prepare<(string | number)[], OperationRow>(sql)
      .all(...values, query.limit)
      .map(fromRow);
  }
}

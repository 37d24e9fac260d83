/** What a fork of a template with a system of its own is recorded as, and which running guests cannot be forked. */
import { describe, expect, it } from 'vitest';
import { forkOfSystem, forkSpec, templateOfRunning } from '../../../daemon/guests/forks.ts';
import type { Guest } from '../../../daemon/guests/guest.ts';
import { refuseUnforkable } from '../../../daemon/guests/live-template.ts';
import type { GuestRecord, StoredSpec } from '../../../daemon/inventory/guest-table.ts';
import type { GuestId } from '../../../protocol/types.ts';
import { aRecord, GUEST } from '../records.ts';

const template = '01890a5d-ac96-774b-bcce-b302099a8060' as GuestId;

const withSpec = (change: Partial<StoredSpec>): GuestRecord => {
  const record = aRecord();
  return { ...record, spec: { ...record.spec, ...change } };
};

const guestOf = (
  record: GuestRecord,
  { verbs = ['fork'], state = 'connected' }: { verbs?: readonly string[]; state?: string } = {},
): Guest =>
  ({
    name: record.name,
    record,
    driver: { name: 'qemu', verbs: new Set(verbs) },
    agent: { view: { state } },
  }) as unknown as Guest;

const cloudInit = { instance: 1, digest: 'd', hostname: 'web1.example.org', sshKeys: ['key'] };

describe('a fork of a system', () => {
  const madeOf = { guest: GUEST, macs: ['52:54:00:00:00:01'] };
  const source = withSpec({
    cloudInit,
    labels: { tier: 'web' },
    template: { madeAt: 1, token: 't', madeOf },
    forkOf: template,
    deleteProtection: true,
  });

  it('has what its memory knows of, NICs of its own, and no name but its own', () => {
    const { like, machine } = forkOfSystem(guestOf(source), {});
    expect(like).not.toHaveProperty('template');
    expect(like).not.toHaveProperty('forkOf');
    expect(like).toMatchObject({ deleteProtection: false, labels: { tier: 'web' } });
    expect(like.cloudInit).toEqual({ instance: 1, digest: 'd', sshKeys: ['key'] });
    expect(like.disks).toEqual(source.spec.disks);
    expect(machine.disks).toEqual(source.machine.disks);
    const [nic] = like.nics;
    expect(nic).toEqual({ name: 'nic0', network: source.spec.nics[0]?.network, mac: expect.any(String) });
    expect(nic?.mac).not.toBe(source.spec.nics[0]?.mac);
    expect(machine.nics).toEqual([{ ...source.machine.nics[0], mac: nic?.mac }]);
  });

  it('has labels of its own where they are given', () => {
    expect(forkOfSystem(guestOf(source), { labels: { tier: 'test' } }).like.labels).toEqual({ tier: 'test' });
  });

  it('runs no program of a container image', () => {
    const asked = {
      template,
      name: 'one',
      program: { command: ['true'], environment: [], terminal: false, interactive: false },
    };
    const named = (): string => 'lan';
    expect(() => forkSpec(source, asked, named)).toThrow('runs no program of a container image');
    expect(forkSpec(source, { template, name: 'one' }, named)).not.toHaveProperty('program');
  });
});

it('a template of a guest that runs never starts by itself, and writes into its own files', () => {
  const record = withSpec({
    restartPolicy: { when: 'always', delayMs: 1, maxDelayMs: 2 },
    disks: [{ name: 'disk0', sizeBytes: 1, readOnly: false, layer: 2 }],
  });
  const { spec } = templateOfRunning(record);
  expect(spec).toMatchObject({ autostart: { enabled: false }, restartPolicy: { when: 'never' } });
  expect(spec.disks).toEqual([{ name: 'disk0', sizeBytes: 1, readOnly: false }]);
});

describe('a guest that runs', () => {
  it('can be forked by its agent', () => {
    expect(() => refuseUnforkable(guestOf(withSpec({ cloudInit })))).not.toThrow();
  });

  it.each([
    [{ agent: { enabled: false } }, 'it has no channel to an agent'],
    [{ cloudInit: { ...cloudInit, networkConfig: 'version: 2' } }, 'network configuration'],
    [{ cloudInit: { ...cloudInit, metaData: 'instance-id: one' } }, 'the meta-data'],
  ])('with %j is refused with the reason', (change, why) => {
    const refused = (): void => refuseUnforkable(guestOf(withSpec(change)));
    expect(refused).toThrow(why);
    expect(refused).toThrow(expect.objectContaining({ class: 'Unsupported' }));
  });

  it.each(['absent', 'silent'])('with an agent that is %s is refused until it answers', (state) => {
    expect(() => refuseUnforkable(guestOf(aRecord(), { state }))).toThrow(
      expect.objectContaining({
        class: 'FailedPrecondition',
        message: `The agent of guest web1 is ${state}`,
      }),
    );
  });

  it('of a driver without forks is refused', () => {
    expect(() => refuseUnforkable(guestOf(aRecord(), { verbs: [] }))).toThrow('driver qemu has no forks');
  });
});

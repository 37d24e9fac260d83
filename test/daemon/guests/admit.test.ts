import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Asked,
  admit,
  type GuestVerbKind,
  type Standing,
  type Verdict,
} from '../../../daemon/guests/admit.ts';
import { guestVerbs } from '../../../drivers/driver.ts';
import type { GuestState, GuestTarget } from '../../../protocol/guest.ts';
import { guestStates } from '../../../protocol/guest.ts';

const allVerbs: ReadonlySet<string> = new Set(guestVerbs);
const kinds: readonly GuestVerbKind[] = [
  'guest-start',
  'template-create',
  'guest-stop',
  'guest-reset',
  'guest-pause',
  'guest-resume',
  'guest-delete',
  'guest-rename',
  'guest-update',
  'guest-disk-attach',
  'guest-disk-detach',
  'guest-disk-resize',
  'guest-disk-delete',
  'guest-cdrom-insert',
  'guest-cdrom-eject',
  'guest-nic-attach',
  'guest-nic-detach',
  'guest-fsfreeze-freeze',
  'guest-fsfreeze-thaw',
];

const standing = (
  state: GuestState,
  target: GuestTarget,
  unfinished: readonly string[] = [],
  more: Partial<Standing> = {},
): Standing => ({
  name: 'web1',
  state,
  target,
  deleteProtection: false,
  hasProcess: false,
  unfinished,
  verbs: allVerbs,
  hotplugs: true,
  frozen: false,
  isTemplate: false,
  isWarm: false,
  isWaiting: false,
  runsProgram: false,
  hasFilesystems: false,
  ...more,
});

const words = (verdict: Verdict): string => (verdict.kind === 'deny' ? verdict.error.class : verdict.kind);

type Row = readonly [string, GuestVerbKind, Standing, string, Asked?];

const isTemplate = { isTemplate: true, runsProgram: true } as const;
const rows: readonly Row[] = [
  [
    'a template is not started',
    'guest-start',
    standing('stopped', 'stopped', [], isTemplate),
    'FailedPrecondition',
  ],
  [
    'a template goes on no more',
    'guest-resume',
    standing('paused', 'stopped', [], isTemplate),
    'FailedPrecondition',
  ],
  [
    'a template keeps its disks',
    'guest-disk-resize',
    standing('paused', 'stopped', [], isTemplate),
    'FailedPrecondition',
  ],
  [
    'a template may be let go of',
    'guest-stop',
    standing('paused', 'stopped', [], { ...isTemplate, hasProcess: true }),
    'accept',
  ],
  [
    'a template may be deleted by force',
    'guest-delete',
    standing('paused', 'stopped', [], { ...isTemplate, hasProcess: true }),
    'accept',
    { force: true },
  ],
  [
    'a template is one already',
    'template-create',
    standing('paused', 'stopped', [], { ...isTemplate, hasProcess: true }),
    'already',
  ],
  [
    'a template that lost its memory can have it again',
    'template-create',
    standing('stopped', 'stopped', [], isTemplate),
    'accept',
  ],
  [
    'but not one whose program ran',
    'template-create',
    standing('stopped', 'stopped', [], { ...isTemplate, isWarm: true }),
    'FailedPrecondition',
  ],
  [
    'a stopped guest of an image may become a template',
    'template-create',
    standing('stopped', 'stopped', [], { runsProgram: true }),
    'accept',
  ],
  [
    'one with directories of the host may not',
    'template-create',
    standing('stopped', 'stopped', [], { runsProgram: true, hasFilesystems: true }),
    'FailedPrecondition',
  ],
  [
    'one that is being made too',
    'template-create',
    standing('stopped', 'stopped', ['guest-create'], { runsProgram: true }),
    'accept',
  ],
  [
    'a running one may not',
    'template-create',
    standing('running', 'running', [], { runsProgram: true, hasProcess: true }),
    'FailedPrecondition',
  ],
  ['one without a program may not', 'template-create', standing('stopped', 'stopped'), 'FailedPrecondition'],
  ['a stopped guest may be started', 'guest-start', standing('stopped', 'stopped'), 'accept'],
  ['a failed guest may be started', 'guest-start', standing('failed', 'running'), 'accept'],
  [
    'a guest that panicked has its process still: it is not started a second time',
    'guest-start',
    standing('failed', 'running', [], { hasProcess: true }),
    'FailedPrecondition',
  ],
  [
    'a guest that panicked is not deleted under its process',
    'guest-delete',
    standing('failed', 'running', [], { hasProcess: true }),
    'FailedPrecondition',
  ],
  ['a running guest is started already', 'guest-start', standing('running', 'running'), 'already'],
  [
    'a guest that is being stopped may be started: it queues behind',
    'guest-start',
    standing('stopping', 'stopped', ['guest-stop']),
    'accept',
  ],
  ['a running guest may be stopped', 'guest-stop', standing('running', 'running'), 'accept'],
  ['a stopped guest is stopped already', 'guest-stop', standing('stopped', 'stopped'), 'already'],
  [
    'a guest that its policy will start again may be stopped, which silences the policy',
    'guest-stop',
    standing('failed', 'running'),
    'accept',
  ],
  [
    'a stop may be forced while another waits',
    'guest-stop',
    standing('stopping', 'stopped', ['guest-stop']),
    'accept',
    { force: true },
  ],
  ['a stopped guest cannot be paused', 'guest-pause', standing('stopped', 'stopped'), 'FailedPrecondition'],
  ['a paused guest is paused already', 'guest-pause', standing('paused', 'running'), 'already'],
  ['a running guest is resumed already', 'guest-resume', standing('running', 'running'), 'already'],
  ['a paused guest may be resumed', 'guest-resume', standing('paused', 'running'), 'accept'],
  ['a running guest may be reset', 'guest-reset', standing('running', 'running'), 'accept'],
  ['a failed guest cannot be reset', 'guest-reset', standing('failed', 'running'), 'FailedPrecondition'],
  [
    'a guest that is about to start may be paused: it queues behind the start',
    'guest-pause',
    standing('stopped', 'running', ['guest-start']),
    'accept',
  ],
  [
    'a guest that is being stopped cannot be paused',
    'guest-pause',
    standing('stopping', 'stopped', ['guest-stop']),
    'FailedPrecondition',
  ],
  ['a running guest may be frozen', 'guest-fsfreeze-freeze', standing('running', 'running'), 'accept'],
  [
    'a frozen guest cannot be frozen again',
    'guest-fsfreeze-freeze',
    standing('running', 'running', [], { frozen: true }),
    'FailedPrecondition',
  ],
  [
    'a frozen guest that is being thawed may be frozen: it queues behind',
    'guest-fsfreeze-freeze',
    standing('running', 'running', ['guest-fsfreeze-thaw'], { frozen: true }),
    'accept',
  ],
  [
    'a guest may be thawed that somebody else has frozen',
    'guest-fsfreeze-thaw',
    standing('running', 'running'),
    'accept',
  ],
  [
    'a stopped guest cannot be thawed',
    'guest-fsfreeze-thaw',
    standing('stopped', 'stopped'),
    'FailedPrecondition',
  ],
  ['a stopped guest may be deleted', 'guest-delete', standing('stopped', 'stopped'), 'accept'],
  ['a running guest cannot be deleted', 'guest-delete', standing('running', 'running'), 'FailedPrecondition'],
  [
    'a running guest may be deleted by force',
    'guest-delete',
    standing('running', 'running'),
    'accept',
    { force: true },
  ],
  [
    'a guest that is being stopped may be deleted: it queues behind the stop',
    'guest-delete',
    standing('stopping', 'stopped', ['guest-stop']),
    'accept',
  ],
  [
    'a protected guest cannot be deleted, not even by force',
    'guest-delete',
    standing('stopped', 'stopped', [], { deleteProtection: true }),
    'FailedPrecondition',
    { force: true },
  ],
  ['a stopped guest may be renamed', 'guest-rename', standing('stopped', 'stopped'), 'accept'],
  ['a running guest cannot be renamed', 'guest-rename', standing('running', 'running'), 'FailedPrecondition'],
  [
    'a guest with work waiting cannot be renamed',
    'guest-rename',
    standing('stopped', 'running', ['guest-start']),
    'FailedPrecondition',
  ],
  ['a running guest may be updated', 'guest-update', standing('running', 'running'), 'accept'],
  ...kinds.map(
    (kind): Row => [
      `a guest that is being deleted takes no ${kind}`,
      kind,
      standing('stopped', 'stopped', ['guest-delete']),
      'FailedPrecondition',
    ],
  ),
  ...(['start', 'stop', 'reset', 'pause', 'resume'] as const).map(
    (verb): Row => [
      `a driver without ${verb} refuses guest-${verb}`,
      `guest-${verb}`,
      standing('running', 'running', [], {
        verbs: new Set([...guestVerbs].filter((each) => each !== verb)),
      }),
      'Unsupported',
    ],
  ),
  ...(['guest-disk-attach', 'guest-disk-detach', 'guest-nic-attach', 'guest-nic-detach'] as const).flatMap(
    (kind): Row[] => [
      [`a running guest may be asked for ${kind}`, kind, standing('running', 'running'), 'accept'],
      [`a stopped guest may be asked for ${kind}`, kind, standing('stopped', 'stopped'), 'accept'],
      [
        `a running guest whose machine is fixed may not be asked for ${kind}`,
        kind,
        standing('running', 'running', [], { hotplugs: false }),
        'Unsupported',
      ],
      [
        `a stopped guest whose machine is fixed may be asked for ${kind}`,
        kind,
        standing('stopped', 'stopped', [], { hotplugs: false }),
        'accept',
      ],
    ],
  ),
];

describe('admit', () => {
  test.each(
    rows.map(([sentence, kind, guest, expected, asked]) => ({ sentence, kind, guest, expected, asked })),
  )('$sentence', ({ kind, guest, expected, asked }) => {
    expect(words(admit(kind, guest, asked))).toBe(expected);
  });

  test('a refusal names the guest, its state and what to do next', () => {
    const verdict = admit('guest-pause', standing('stopped', 'stopped'));
    expect(verdict).toMatchObject({
      kind: 'deny',
      error: { message: 'Guest web1 is stopped', hint: 'Start it first.', data: { guest: 'web1' } },
    });
  });
});

const anyStanding: fc.Arbitrary<Standing> = fc.record({
  name: fc.constant('web1'),
  state: fc.constantFrom(...(Object.keys(guestStates) as GuestState[])),
  reason: fc.option(fc.string(), { nil: undefined }),
  target: fc.constantFrom<GuestTarget>('running', 'stopped'),
  deleteProtection: fc.boolean(),
  hasProcess: fc.boolean(),
  unfinished: fc.array(fc.constantFrom(...kinds, 'guest-create'), { maxLength: 4 }),
  hotplugs: fc.boolean(),
  frozen: fc.boolean(),
  isTemplate: fc.boolean(),
  isWarm: fc.boolean(),
  isWaiting: fc.boolean(),
  runsProgram: fc.boolean(),
  hasFilesystems: fc.boolean(),
  verbs: fc.subarray([...guestVerbs]).map((verbs) => new Set<string>(verbs)),
});

describe('whatever stands', () => {
  test('admit answers, and every refusal says what to do next', () => {
    fc.assert(
      fc.property(fc.constantFrom(...kinds), anyStanding, fc.boolean(), (kind, guest, force) => {
        const verdict = admit(kind, guest, { force });
        const answer = verdict.kind === 'deny' ? verdict.error.hint : verdict.kind;
        expect(answer).toBeTruthy();
      }),
    );
  });

  test('what is so already is never work: already only when nothing is unfinished', () => {
    fc.assert(
      fc.property(fc.constantFrom(...kinds), anyStanding, (kind, guest) => {
        const already = admit(kind, guest).kind === 'already';
        expect(already && guest.unfinished.length > 0).toBe(false);
      }),
    );
  });

  test('a guest that can be stopped at all can always be stopped, unless it is being deleted', () => {
    fc.assert(
      fc.property(anyStanding, fc.boolean(), (guest, force) => {
        fc.pre(guest.verbs.has('stop') && !guest.unfinished.includes('guest-delete'));
        expect(admit('guest-stop', guest, { force }).kind).not.toBe('deny');
      }),
    );
  });

  test('a protected guest is never deleted', () => {
    fc.assert(
      fc.property(anyStanding, fc.boolean(), (guest, force) => {
        expect(admit('guest-delete', { ...guest, deleteProtection: true }, { force }).kind).toBe('deny');
      }),
    );
  });
});

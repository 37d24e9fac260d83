/**
 * May this be asked of a guest now? Pure: from what is recorded, seen and queued to one of three answers. What can
 * only be known when the turn comes is checked again then; this refuses what can never come right.
 */
import { RoostError } from '../../protocol/errors.ts';
import type { GuestState, GuestTarget } from '../../protocol/guest.ts';

export type GuestVerbKind =
  | 'guest-start'
  | 'template-create'
  | 'guest-save'
  | 'guest-clone'
  | 'guest-stop'
  | 'guest-reset'
  | 'guest-pause'
  | 'guest-resume'
  | 'guest-delete'
  | 'guest-reset-state'
  | 'guest-rename'
  | 'guest-update'
  | 'guest-disk-attach'
  | 'guest-disk-detach'
  | 'guest-disk-resize'
  | 'guest-disk-delete'
  | 'guest-cdrom-insert'
  | 'guest-cdrom-eject'
  | 'guest-nic-attach'
  | 'guest-nic-detach'
  | 'guest-fsfreeze-freeze'
  | 'guest-fsfreeze-thaw';

export interface Standing {
  readonly name: string;
  readonly state: GuestState;
  readonly reason?: string | undefined;
  /** Name of its driver, where this daemon has none of that name. */
  readonly missingDriver?: string | undefined;
  readonly target: GuestTarget;
  /** A failed guest may have one still: QEMU stays when the guest panicked. */
  readonly hasProcess: boolean;
  readonly deleteProtection: boolean;
  /** Kinds of the unfinished operations, the running one first. */
  readonly unfinished: readonly string[];
  /** What the driver can do. */
  readonly verbs: ReadonlySet<string>;
  /** Whether its machine takes and gives devices while it runs. */
  readonly hotplugs: boolean;
  /** Its file systems are, or may be. */
  readonly frozen: boolean;
  /** It is kept to be forked. */
  readonly isTemplate: boolean;
  /** It is a template whose program ran: another boot would not make it again. */
  readonly isWarm: boolean;
  /** It is nobody's yet. */
  readonly isWaiting: boolean;
  /** Its main program is that of a container image. */
  readonly runsProgram: boolean;
  /** It has directories of the host. */
  readonly hasFilesystems: boolean;
}

export interface Asked {
  readonly force?: boolean;
}

export type Verdict =
  | { readonly kind: 'accept' }
  /** It is so already: success without work. */
  | { readonly kind: 'already' }
  | { readonly kind: 'deny'; readonly error: RoostError };

const ACCEPT: Verdict = { kind: 'accept' };
const ALREADY: Verdict = { kind: 'already' };

const deny = (standing: Standing, why: string, hint: string): Verdict => ({
  kind: 'deny',
  error: new RoostError('FailedPrecondition', `Guest ${standing.name} ${why}`, {
    data: { guest: standing.name, state: standing.state, target: standing.target },
    hint,
  }),
});

const VERB_OF: Readonly<Partial<Record<GuestVerbKind, string>>> = {
  'guest-start': 'start',
  'template-create': 'fork',
  'guest-stop': 'stop',
  'guest-reset': 'reset',
  'guest-pause': 'pause',
  'guest-resume': 'resume',
};

const isDown = ({ state, hasProcess }: Standing): boolean =>
  !hasProcess && (state === 'stopped' || state === 'failed');

const describe = (standing: Standing): string =>
  standing.reason === undefined ? `is ${standing.state}` : `is ${standing.state} (${standing.reason})`;

const admitStart = (standing: Standing): Verdict => {
  if (standing.state === 'failed' && standing.hasProcess && standing.unfinished.length === 0)
    return deny(standing, `${describe(standing)} and its process lives still`, 'Reset it, or stop it first.');
  if (standing.target === 'running' && standing.unfinished.length === 0 && !isDown(standing)) return ALREADY;
  return ACCEPT;
};

/** A template that has lost its memory can have it again. */
const admitRemaking = (standing: Standing): Verdict => {
  if (standing.unfinished.includes('template-create'))
    return deny(standing, 'is being made a template', 'Fork it: until it is one, its forks boot.');
  if (standing.unfinished.length > 0) return deny(standing, 'is a template already', 'Fork it: roost fork.');
  if (standing.hasProcess) return ALREADY;
  if (!standing.isWarm) return ACCEPT;
  return deny(
    standing,
    'was made of a guest that ran, and what that had in memory is gone',
    'Its forks boot. Make another of a guest that runs: roost template create NAME --from GUEST.',
  );
};

/** Of a stopped guest: its memory has to be made for it from the start. */
const admitTemplate = (standing: Standing): Verdict => {
  if (standing.isTemplate) return admitRemaking(standing);
  if (!standing.runsProgram)
    return deny(
      standing,
      'boots no container image',
      'Make a template of it while it runs: roost template create NAME --from GUEST.',
    );
  if (standing.hasFilesystems)
    return deny(
      standing,
      'shares directories of the host, whose files would be in use in the memory that is kept',
      'Put what forks are to have into an image, or give the guest copies of the directories (mode copy).',
    );
  if (isDown(standing) && standing.unfinished.every((kind) => kind === 'guest-create')) return ACCEPT;
  return deny(standing, describe(standing), 'Stop it first.');
};

/** What does not touch its memory and its disks, which its forks share. */
const KEEPS_TEMPLATE: ReadonlySet<GuestVerbKind> = new Set([
  'template-create',
  'guest-stop',
  'guest-delete',
  'guest-reset-state',
  'guest-update',
  'guest-rename',
]);

/** Of one that is nobody's. */
const ENDS_WAITING: ReadonlySet<GuestVerbKind> = new Set(['guest-stop', 'guest-delete', 'guest-reset-state']);

/** Whoever stops a template that has lost its memory wants it not to be made anew. */
const admitStop = (standing: Standing): Verdict =>
  !standing.isTemplate &&
  standing.target === 'stopped' &&
  standing.unfinished.length === 0 &&
  standing.state === 'stopped'
    ? ALREADY
    : ACCEPT;

/** Verbs that need a running process, or one that a queued start will make. */
const admitLive = (standing: Standing, already: GuestState | undefined): Verdict => {
  if (standing.unfinished.length > 0)
    return standing.target === 'running' ? ACCEPT : deny(standing, 'is being stopped', 'Start it first.');
  if (standing.state === already) return ALREADY;
  if (isDown(standing)) return deny(standing, describe(standing), 'Start it first.');
  return ACCEPT;
};

const admitFreeze = (standing: Standing): Verdict =>
  standing.frozen && !standing.unfinished.includes('guest-fsfreeze-thaw')
    ? deny(standing, 'is frozen already', 'Thaw it first, or wait until it is thawed.')
    : admitLive(standing, undefined);

const admitDelete = (standing: Standing, asked: Asked): Verdict => {
  if (standing.deleteProtection)
    return deny(
      standing,
      'is protected against deletion',
      'Set deleteProtection to false with guest-update first.',
    );
  if (asked.force) return ACCEPT;
  if (isDown(standing) && standing.unfinished.length === 0) return ACCEPT;
  if (standing.target === 'stopped' && !standing.unfinished.includes('guest-start')) return ACCEPT;
  return deny(standing, describe(standing), 'Stop it first, or delete it with force.');
};

/** Its files are read once it does not run: now, or by what is asked of it already. */
const admitReading = (standing: Standing): Verdict => {
  if (standing.unfinished.includes('guest-start'))
    return deny(standing, 'is being started', 'Stop it first, and ask again.');
  if (isDown(standing) || standing.target === 'stopped') return ACCEPT;
  return deny(standing, describe(standing), 'Stop it first, and ask again.');
};

/** A device comes or goes. What a guest that is down gets, it has at its next start. */
const admitPlug = (standing: Standing): Verdict => {
  if (standing.hotplugs || isDown(standing)) return ACCEPT;
  return {
    kind: 'deny',
    error: new RoostError(
      'Unsupported',
      `The machine of guest ${standing.name} takes and gives no device while it runs`,
      { data: { guest: standing.name, state: standing.state }, hint: 'Stop the guest first.' },
    ),
  };
};

/** Its settings can be changed, and it can be given up; nothing else goes without a driver. */
const admitWithoutDriver = (
  kind: GuestVerbKind,
  standing: Standing,
  driver: string,
  asked: Asked,
): Verdict => {
  if (kind === 'guest-delete' && asked.force) return admitDelete(standing, asked);
  if (kind === 'guest-update') return ACCEPT;
  const { name, target } = standing;
  return {
    kind: 'deny',
    error: new RoostError(
      'Unsupported',
      `Guest ${name} needs the driver ${driver}, which this daemon does not have`,
      {
        data: { guest: name, driver, target },
        hint: 'Ask a daemon that has it, or give the guest up: delete it with force.',
      },
    ),
  };
};

export const admit = (kind: GuestVerbKind, standing: Standing, asked: Asked = {}): Verdict => {
  if (standing.missingDriver !== undefined && !standing.unfinished.includes('guest-delete'))
    return admitWithoutDriver(kind, standing, standing.missingDriver, asked);
  const verb = VERB_OF[kind];
  if (verb !== undefined && !standing.verbs.has(verb))
    return {
      kind: 'deny',
      error: new RoostError('Unsupported', `The driver of guest ${standing.name} cannot ${verb}`, {
        data: { guest: standing.name, verb },
        hint: 'query-host lists what each driver can do.',
      }),
    };
  if (standing.unfinished.includes('guest-delete'))
    return deny(standing, 'is being deleted', 'Nothing is left to do.');
  if (standing.isWaiting && !ENDS_WAITING.has(kind))
    return deny(standing, 'waits for somebody who forks its template', 'Fork the template: roost fork.');
  if (standing.isTemplate && !KEEPS_TEMPLATE.has(kind))
    return deny(standing, 'is a template and runs no more', 'Fork it: roost fork.');
  switch (kind) {
    case 'template-create':
      return admitTemplate(standing);
    case 'guest-start':
      return admitStart(standing);
    case 'guest-stop':
      return admitStop(standing);
    case 'guest-save':
    case 'guest-clone':
      return admitReading(standing);
    case 'guest-pause':
      return admitLive(standing, 'paused');
    case 'guest-resume':
      return admitLive(standing, 'running');
    case 'guest-reset':
    case 'guest-fsfreeze-thaw':
      return admitLive(standing, undefined);
    case 'guest-fsfreeze-freeze':
      return admitFreeze(standing);
    case 'guest-delete':
      return admitDelete(standing, asked);
    case 'guest-rename':
      return isDown(standing) && standing.unfinished.length === 0
        ? ACCEPT
        : deny(standing, describe(standing), 'Stop it first: its name is in use on its network.');
    case 'guest-disk-attach':
    case 'guest-disk-detach':
    case 'guest-nic-attach':
    case 'guest-nic-detach':
      return admitPlug(standing);
    case 'guest-cdrom-insert':
    case 'guest-cdrom-eject':
    case 'guest-disk-resize':
    case 'guest-disk-delete':
    case 'guest-update':
    case 'guest-reset-state':
      return ACCEPT;
  }
};

/** Where a guest stands, for whoever decides what may be asked of it. */
import type { Standing } from './admit.ts';
import type { Guest } from './guest.ts';
import { runsProgram } from './runs-program.ts';

export const standingOf = (guest: Guest): Standing => ({
  name: guest.name,
  state: guest.state,
  reason: guest.status.reason,
  missingDriver: guest.missingDriver,
  target: guest.record.target,
  hasProcess: guest.handle !== undefined || guest.status.process !== undefined,
  deleteProtection: guest.record.spec.deleteProtection,
  unfinished: guest.unfinished.map((operation) => operation.kind),
  verbs: guest.driver.verbs,
  hotplugs: guest.driver.hotplugs(guest.record.machine),
  frozen: guest.freezing.frozen !== undefined,
  isTemplate: guest.record.spec.template !== undefined,
  isWarm: guest.record.spec.template?.madeOf !== undefined,
  isWaiting: guest.isWaiting,
  runsProgram: runsProgram(guest.record.spec),
  hasFilesystems: guest.record.spec.filesystems.length > 0,
});

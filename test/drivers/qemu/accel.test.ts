import { describe, expect, it } from 'vitest';
import { type AccelFacts, decideAccel, mayOpen } from '../../../drivers/qemu/accel.ts';

const good: AccelFacts = { device: 'opens', owner: { gid: 104, mode: 0o660 }, virtualization: true };
const denied: AccelFacts = { ...good, device: 'denied' };

describe('decideAccel', () => {
  it.each<[string, AccelFacts, 'kvm' | 'tcg', string]>([
    ['takes KVM where it opens and the processor can', good, 'kvm', 'opens'],
    ['does not without vmx or svm', { ...good, virtualization: false }, 'tcg', 'neither vmx nor svm'],
    ['does not where the device does not open', denied, 'tcg', 'mode 0660, group 104'],
    ['does not without the device', { device: 'missing', virtualization: true }, 'tcg', 'no /dev/kvm'],
    ['takes it where there is no such flag', { device: 'opens' }, 'kvm', 'opens'],
  ])('auto %s', (_title, facts, accel, why) => {
    const choice = decideAccel('auto', facts);
    expect(choice.accel).toBe(accel);
    expect(choice.why).toContain(why);
  });

  it('takes TCG when asked, whatever there is', () => {
    expect(decideAccel('tcg', good).accel).toBe('tcg');
  });

  it('insists on KVM when asked, also against the look of the processor', () => {
    expect(decideAccel('kvm', { ...good, virtualization: false }).accel).toBe('kvm');
  });

  it('names the group when KVM is insisted on and does not open', () => {
    expect(() => decideAccel('kvm', denied)).toThrow(
      expect.objectContaining({ class: 'Unsupported', hint: expect.stringContaining('104') }),
    );
    expect(() => decideAccel('kvm', { device: 'missing' })).toThrow(
      expect.objectContaining({ class: 'Unsupported', hint: expect.stringContaining('kvm_intel') }),
    );
  });
});

describe('mayOpen', () => {
  const file = { mode: 0o020660, uid: 0, gid: 104 };
  it.each([
    ['a member of the group', file, { uid: 2000, gid: 2000, groups: [104] }, true],
    ['one whose first group it is', file, { uid: 2000, gid: 104, groups: [] }, true],
    ['a stranger', file, { uid: 2000, gid: 2000, groups: [] }, false],
    ['a stranger, where all may', { ...file, mode: 0o020666 }, { uid: 2000, gid: 2000, groups: [] }, true],
    [
      'a member, where only the owner may',
      { ...file, mode: 0o020600 },
      { uid: 2000, gid: 104, groups: [] },
      false,
    ],
    ['the owner', { ...file, uid: 2000 }, { uid: 2000, gid: 2000, groups: [] }, true],
    [
      'an owner without the right',
      { ...file, uid: 2000, mode: 0o020066 },
      { uid: 2000, gid: 2, groups: [104] },
      false,
    ],
    ['root', { ...file, mode: 0o020000 }, { uid: 0, gid: 0, groups: [] }, true],
  ])('%s', (_who, device, credentials, expected) => {
    expect(mayOpen(device, credentials)).toBe(expected);
  });
});

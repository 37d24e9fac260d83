import { driverConformance } from '../../conformance/driver.ts';
import { describeWith } from '../../harness/needs.ts';
import { makeQemuHarness } from './qemu-harness.ts';

describeWith(['qemu'], 'under the uid of the daemon', () => {
  driverConformance('the QEMU driver', () => makeQemuHarness({ ownUid: false }));
});

describeWith(['qemu', 'root'], 'under a uid of its own, in a place that only root may pass', () => {
  driverConformance('the QEMU driver', () => makeQemuHarness({ ownUid: true, hidden: true }));
});

import { driverConformance } from '../../conformance/driver.ts';
import { describeWith } from '../../harness/needs.ts';
import { makeLxcHarness } from './lxc-harness.ts';

describeWith(['lxc', 'root'], 'containers of busybox', () => {
  driverConformance('the LXC driver', () => makeLxcHarness(), { hasDevices: false });
  driverConformance('the LXC driver over trees', () => makeLxcHarness('tree'), { hasDevices: false });
});

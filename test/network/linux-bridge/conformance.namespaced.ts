import { beforeAll } from 'vitest';
import { networkConformance } from '../../conformance/network.ts';
import { linuxBridgeBench, prepareNamespace } from './bench.ts';

beforeAll(prepareNamespace);

networkConformance('linux-bridge', ['nat', 'isolated'], linuxBridgeBench);

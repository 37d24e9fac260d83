/** What a guest runs of an image, and what its init is told. */
import { describe, expect, test } from 'vitest';
import { programOf } from '../../daemon/guests/resolve-program.ts';
import { setupOf } from '../../daemon/guests/who-it-is.ts';
import { ociConfig } from '../../protocol/oci.ts';
import { programSpec } from '../../protocol/program.ts';
import type { ImageId } from '../../protocol/types.ts';

const IMAGE = '01890a5d-ac96-774b-bcce-b302099a8057' as ImageId;
const config = (more: object = {}) =>
  ociConfig.parse({
    entrypoint: ['/entry'],
    cmd: ['serve'],
    env: ['PATH=/bin', 'A=1'],
    exposedPorts: [],
    volumes: [],
    labels: {},
    ...more,
  });
const program = (asked: object, more: object = {}) =>
  programOf(programSpec.parse({ image: 'app', ...asked }), IMAGE, config(more));

describe('the program', () => {
  test("is the image's, with what was asked for in its place", () => {
    expect(program({}).argv).toEqual(['/entry', 'serve']);
    expect(program({ command: ['check', '-v'] }).argv).toEqual(['/entry', 'check', '-v']);
    expect(program({ entrypoint: ['sh'] }).argv).toEqual(['sh']);
    expect(program({ entrypoint: ['sh'], command: ['-c', 'x'] }).argv).toEqual(['sh', '-c', 'x']);
  });

  test('has each variable once, the later over the earlier, and a PATH in any case', () => {
    expect(program({ environment: ['A=2', 'B='] }).environment).toEqual(['PATH=/bin', 'A=2', 'B=']);
    expect(program({}, { env: ['odd'] }).environment).toEqual([expect.stringMatching(/^PATH=\/usr/)]);
  });

  test.each([
    [undefined, 'SIGTERM'],
    ['SIGQUIT', 'SIGQUIT'],
    ['QUIT', 'SIGQUIT'],
    ['3', 'SIGQUIT'],
    ['nonsense', 'SIGTERM'],
  ])('with the stop signal %s is asked to end by %s', (stopSignal, name) => {
    expect(program({}, { stopSignal }).stopSignal).toBe(name);
  });

  test('that is none is refused', () => {
    expect(() => program({}, { entrypoint: [], cmd: [] })).toThrow('names no program to run');
    expect(() => program({ command: [''] }, { entrypoint: [] })).toThrow('names no program to run');
  });
});

describe('an init', () => {
  const guest = { id: '5ddf3416-bf48-448f-b5ed-270ab81f15b8', name: 'web' };
  const lan = { name: 'lan', kind: 'nat', subnet: '10.9.0.0/24', gateway: '10.9.0.1' } as const;
  const places = [
    { mac: '52:54:00:00:00:01', ...lan, kind: 'isolated', ipv4: '10.9.0.5' },
    { mac: '52:54:00:00:00:02', ...lan, name: 'wan', ipv4: '10.9.0.6' },
    { mac: '52:54:00:00:00:03', name: 'slirp', kind: 'user' },
    { mac: '52:54:00:00:00:04', name: 'office', kind: 'bridge' },
  ] as const;

  test('is told its addresses, one way out, and where names are looked up', () => {
    const { links, resolver, hosts, hostname, machineId } = setupOf(guest, program({}), places);
    expect([hostname, machineId]).toEqual(['web', '5ddf3416bf48448fb5ed270ab81f15b8']);
    expect(links).toEqual([
      { mac: '52:54:00:00:00:01', addresses: ['10.9.0.5/24'] },
      { mac: '52:54:00:00:00:02', addresses: ['10.9.0.6/24'], gateway: '10.9.0.1' },
      { mac: '52:54:00:00:00:03', addresses: ['10.0.2.15/24'] },
      { mac: '52:54:00:00:00:04', addresses: [] },
    ]);
    expect(resolver).toEqual({ nameservers: ['10.9.0.1', '10.0.2.3'], search: ['lan', 'wan', 'office'] });
    expect(hosts).toEqual(['10.9.0.5 web']);
  });

  test('without a network knows itself', () => {
    const { links, hosts, program: run } = setupOf(guest, program({}), []);
    expect({ links, hosts }).toEqual({ links: [], hosts: ['127.0.1.1 web'] });
    expect(run.environment).toContain('HOSTNAME=web');
  });
});

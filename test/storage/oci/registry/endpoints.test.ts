import { describe, expect, it } from 'vitest';
import { endpointsOf } from '../../../../storage/oci/registry/endpoints.ts';

const bases = (
  registry: string,
  plainHttp?: boolean,
  settings: Parameters<typeof endpointsOf>[1]['settings'] = [],
  hasAuthorities = false,
): readonly string[] =>
  endpointsOf(registry, { plainHttp, hasAuthorities, settings }).map(({ base }) => base);

describe('the servers of a registry', () => {
  it.each([
    ['docker.io', undefined, 'https://registry-1.docker.io'],
    ['ghcr.io', undefined, 'https://ghcr.io'],
    ['localhost:5000', undefined, 'http://localhost:5000'],
    ['127.0.0.9', undefined, 'http://127.0.0.9'],
    ['[::1]:5000', undefined, 'http://[::1]:5000'],
    ['127.0.0.1.example', undefined, 'https://127.0.0.1.example'],
    ['localhost.example', undefined, 'https://localhost.example'],
    ['10.0.0.1:5000', undefined, 'https://10.0.0.1:5000'],
    ['10.0.0.1:5000', true, 'http://10.0.0.1:5000'],
    ['localhost:5000', false, 'https://localhost:5000'],
  ] as const)('%s, plain %s: %s', (registry, plainHttp, base) => {
    expect(bases(registry, plainHttp)).toEqual([base]);
  });

  it('are spoken to by TLS where somebody gave authorities', () => {
    expect(bases('localhost:5000', undefined, [], true)).toEqual(['https://localhost:5000']);
  });

  it('begin with the mirrors, of that registry alone', () => {
    const settings = [
      { registry: 'docker.io', mirrors: ['https://m.example/hub/', 'http://10.0.0.1'] },
      { registry: 'plain.example', mirrors: [], plainHttp: true },
    ];
    expect(bases('docker.io', undefined, settings)).toEqual([
      'https://m.example/hub',
      'http://10.0.0.1',
      'https://registry-1.docker.io',
    ]);
    expect(bases('ghcr.io', undefined, settings)).toEqual(['https://ghcr.io']);
    expect(bases('plain.example', undefined, settings)).toEqual(['http://plain.example']);
  });

  it('are not configured with credentials', () => {
    const settings = [{ registry: 'docker.io', mirrors: ['https://a:b@m.example'] }];
    expect(() => bases('docker.io', undefined, settings)).toThrow(
      expect.objectContaining({ class: 'InvalidArgument' }),
    );
  });
});

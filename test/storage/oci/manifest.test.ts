import { describe, expect, it } from 'vitest';
import { parseImageConfig } from '../../../storage/oci/image-config.ts';
import {
  choosePlatform,
  type Descriptor,
  parseManifest,
  parsePlatform,
} from '../../../storage/oci/manifest.ts';
import {
  DOCKER_CONFIG,
  DOCKER_INDEX,
  DOCKER_MANIFEST,
  layerCompression,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
} from '../../../storage/oci/media-types.ts';

const digestOf = (digit: string): string => `sha256:${digit.repeat(64)}`;
const descriptor = (mediaType: string, digit = '1'): Record<string, unknown> => ({
  mediaType,
  digest: digestOf(digit),
  size: 10,
});
const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const manifest = {
  schemaVersion: 2,
  config: descriptor(OCI_CONFIG),
  layers: [descriptor(`${OCI_LAYER}+gzip`)],
};
const invalid = expect.objectContaining({ class: 'InvalidArgument' });
const unsupported = expect.objectContaining({ class: 'Unsupported' });

describe('a document', () => {
  it('is what it says, or as what it was announced, or what it looks like', () => {
    expect(parseManifest(bytes({ ...manifest, mediaType: OCI_MANIFEST }), undefined).kind).toBe('manifest');
    expect(parseManifest(bytes(manifest), DOCKER_MANIFEST).kind).toBe('manifest');
    expect(parseManifest(bytes(manifest), 'text/plain').kind).toBe('manifest');
    expect(parseManifest(bytes({ schemaVersion: 2, manifests: [] }), undefined).kind).toBe('index');
    expect(parseManifest(bytes({ mediaType: DOCKER_INDEX, manifests: [] }), OCI_INDEX).kind).toBe('index');
    const docker = { ...manifest, config: descriptor(DOCKER_CONFIG) };
    expect(parseManifest(bytes(docker), DOCKER_MANIFEST).kind).toBe('manifest');
  });

  it('is refused where it could be read two ways', () => {
    expect(() => parseManifest(bytes({ ...manifest, manifests: [] }), OCI_MANIFEST)).toThrow(invalid);
    expect(() => parseManifest(bytes({ ...manifest, mediaType: OCI_MANIFEST }), OCI_INDEX)).toThrow(invalid);
    expect(() => parseManifest(bytes(manifest), OCI_INDEX)).toThrow(invalid);
  });

  it.each([
    ['no JSON', Buffer.from('{')],
    ['no UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['a list', bytes([])],
    ['without a config', bytes({ layers: [] })],
    [
      'with a digest that is none',
      bytes({ ...manifest, config: { ...manifest.config, digest: 'sha256:1' } }),
    ],
    ['with a path for a digest', bytes({ ...manifest, config: { ...manifest.config, digest: '../../x' } })],
    ['with a negative size', bytes({ ...manifest, config: { ...manifest.config, size: -1 } })],
    ['with a huge config', bytes({ ...manifest, config: { ...manifest.config, size: 1e9 } })],
    ['with too many layers', bytes({ ...manifest, layers: Array(513).fill(manifest.layers[0]) })],
  ])('%s is refused', (_title, content) => {
    expect(() => parseManifest(content, OCI_MANIFEST)).toThrow(invalid);
  });

  it.each([
    ['a chart', { ...manifest, config: descriptor('application/vnd.cncf.helm.config.v1+json') }],
    ['a layer of another kind', { ...manifest, layers: [descriptor('application/octet-stream')] }],
    ['of schema 1', { schemaVersion: 1, name: 'x', fsLayers: [] }],
    ['of another media type', { ...manifest, mediaType: 'application/x' }],
  ])('%s is no image', (_title, content) => {
    expect(() => parseManifest(bytes(content), undefined)).toThrow(unsupported);
  });

  it.each([
    [OCI_LAYER, 'none'],
    [`${OCI_LAYER}+gzip`, 'gzip'],
    [`${OCI_LAYER}+zstd`, 'zstd'],
    ['application/vnd.oci.image.layer.nondistributable.v1.tar+gzip', 'gzip'],
    ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
    ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
    ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'gzip'],
    [`${OCI_LAYER}+encrypted`, undefined],
    [`${OCI_LAYER}+constructor`, undefined],
    ['application/vnd.oci.image.layer.v1.tarconstructor', undefined],
    ['application/gzip', undefined],
  ])('a layer %s is packed by %s', (mediaType, compression) => {
    expect(layerCompression(mediaType)).toBe(compression);
  });
});

describe('the platform', () => {
  const offer = (text: string, digit: string): Descriptor =>
    ({ ...descriptor(OCI_MANIFEST, digit), platform: parsePlatform(text) }) as Descriptor;
  const chosen = (wanted: string, ...offers: string[]): number | undefined => {
    const manifests = offers.map((text, index) => offer(text, `${index}`));
    const found = choosePlatform(manifests, parsePlatform(wanted));
    return manifests.findIndex(({ digest }) => digest === found.digest);
  };

  it.each([
    ['linux/amd64', ['linux/arm64', 'linux/amd64'], 1],
    ['linux/amd64', ['linux/amd64/v3', 'linux/amd64'], 1],
    ['linux/amd64/v3', ['linux/amd64', 'linux/amd64/v3'], 1],
    ['linux/arm64', ['linux/arm64/v8'], 0],
    ['linux/arm64/v8', ['linux/arm64'], 0],
    ['linux/arm', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm/v7'], 2],
    ['linux/arm/v6', ['linux/arm/v7', 'linux/arm/v5'], 1],
    ['linux/amd64', ['unknown/unknown', 'linux/amd64'], 1],
  ] as const)('%s of %j', (wanted, offers, index) => {
    expect(chosen(wanted, ...offers)).toBe(index);
  });

  it('that there is none for is refused, naming those that there are', () => {
    expect(() => chosen('linux/s390x', 'linux/amd64', 'unknown/unknown', 'linux/arm64/v8')).toThrow(
      expect.objectContaining({
        class: 'InvalidArgument',
        data: { wanted: 'linux/s390x', platforms: ['linux/amd64', 'linux/arm64/v8'] },
      }),
    );
  });

  it('may be left to the config of the only one', () => {
    const silent = descriptor(OCI_MANIFEST) as Descriptor;
    expect(choosePlatform([silent], parsePlatform('linux/amd64'))).toBe(silent);
    expect(() => choosePlatform([silent, silent], parsePlatform('linux/amd64'))).toThrow(invalid);
  });
});

describe('the config', () => {
  const config = (changes: unknown): Uint8Array =>
    bytes({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [] }, config: changes });

  it('is told in our words, without what is not set', () => {
    const { config: told } = parseImageConfig(
      config({
        User: 'me:users',
        ExposedPorts: { '80/tcp': {} },
        Env: ['A=1'],
        Entrypoint: ['/e'],
        Cmd: null,
        Volumes: { '/data': {} },
        WorkingDir: '',
        Labels: { a: 'b' },
        StopSignal: 'SIGINT',
        Healthcheck: { Test: ['CMD', 'true'], Interval: 30_000_000_000, Retries: 3 },
        Unknown: 1,
      }),
    );
    expect(told).toEqual({
      user: 'me:users',
      exposedPorts: ['80/tcp'],
      env: ['A=1'],
      entrypoint: ['/e'],
      cmd: [],
      volumes: ['/data'],
      labels: { a: 'b' },
      stopSignal: 'SIGINT',
      healthcheck: { test: ['CMD', 'true'], intervalMs: 30_000, retries: 3 },
    });
  });

  it('may be missing, as in an image of nothing but files', () => {
    expect(parseImageConfig(config(undefined)).config).toMatchObject({ cmd: [], env: [] });
  });

  it.each([
    ['no platform', bytes({ rootfs: { type: 'layers' } })],
    ['no root file system', bytes({ os: 'linux', architecture: 'amd64' })],
    ['a command that is no list', config({ Cmd: 'sh -c x' })],
    ['labels without end', config({ Labels: { a: 'x'.repeat(600_000) } })],
  ])('with %s is refused', (_title, content) => {
    expect(() => parseImageConfig(content)).toThrow(invalid);
  });
});

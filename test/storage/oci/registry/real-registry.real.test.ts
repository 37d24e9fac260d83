/** Images pushed by skopeo to Debian's own registry, and to files, and what becomes of them here. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { configIn } from '../../../../storage/oci/image-config-file.ts';
import type { OciOrigin } from '../../../../storage/pool.ts';
import { work } from '../../../conformance/pool.ts';
import { describeWith } from '../../../harness/needs.ts';
import {
  archiveOf,
  Layout,
  python,
  type ToldTree,
  tellTree,
  tool,
  unsquash,
} from '../../../harness/oci-layout.ts';
import { startRegistry } from '../../../harness/real-registry.ts';
import { bring, type OciPlace, ociPlace } from '../oci-place.ts';

const CAPABILITY = '0100000280000000000000000000000000000000';
const secret = { username: 'me', password: 'open sesame' };

interface Made extends OciPlace {
  readonly layout: Layout;
  /** What umoci makes of it. */
  readonly expected: ToldTree;
}

/** An image of two layers that has a little of everything. */
const made = async (): Promise<Made> => {
  const place = await ociPlace();
  const layout = await Layout.make(join(place.path, 'layout'));
  const layers: Awaited<ReturnType<Layout['layer']>>[] = [];
  const programs = [
    `
os.mkdir('bin'); os.mkdir('home'); os.mkdir('data')
for name in ('bin/ping','home/file','data/old','gone'):
    with open(name,'w') as file: file.write(name*1000)
os.setxattr('bin/ping','security.capability',bytes.fromhex('${CAPABILITY}'))
os.chown('home/file',1000,1000); os.chmod('bin/ping',0o4755); os.link('bin/ping','bin/ping6')
os.mknod('null',0o666|stat.S_IFCHR,os.makedev(1,3)); os.symlink('../../etc/shadow','out')
`,
    `
os.mkdir('data')
for name in ('.wh.gone','data/.wh..wh..opq','data/new'):
    with open(name,'w') as file: file.write(name)
`,
  ];
  for (const [index, program] of programs.entries()) {
    const tree = join(place.path, `tree-${index}`);
    await mkdir(tree);
    await python(tree, `os.chdir(root)\n${program}`);
    layers.push(await layout.layer(await archiveOf(tree, join(place.path, `${index}.tar`))));
  }
  await layout.image('one', layers, {
    config: { User: '1000', Entrypoint: ['/bin/ping'], Cmd: ['-c', '1'], StopSignal: 'SIGINT' },
  });
  const bundle = join(place.path, 'bundle');
  await tool(['umoci', 'unpack', '--image', `${layout.path}:one`, bundle]);
  return { ...place, layout, expected: await tellTree(join(bundle, 'rootfs')) };
};

const pushed = async ({ layout }: Made, target: string, ...options: readonly string[]): Promise<void> => {
  await tool(['skopeo', 'copy', '--quiet', ...options, `oci:${layout.path}:one`, target]);
};

/** The tree of its disk, and what of its config is looked at. */
const brought = async (image: Made, from: OciOrigin, id: string): Promise<unknown> => {
  const request = await image.request(from, id);
  const disk = await bring(image.images, request);
  const tree = await tellTree(await unsquash(disk, join(image.path, `${id}.tree`)));
  const { user, entrypoint, cmd, stopSignal } = (await configIn(request.directory)) ?? {};
  return { tree, config: { user, entrypoint, cmd, stopSignal } };
};

const whole = ({ expected }: Made): unknown => ({
  tree: expected,
  config: { user: '1000', entrypoint: ['/bin/ping'], cmd: ['-c', '1'], stopSignal: 'SIGINT' },
});

describeWith(['root', 'docker-registry', 'skopeo', 'umoci', 'sqfstar'], 'an image', () => {
  test('comes from a registry in both forms of manifest, and from every form of file, as umoci unpacks it', async () => {
    const image = await made();
    const { host } = await startRegistry();
    await pushed(image, `docker://${host}/team/app:oci`, '--dest-tls-verify=false', '--format=oci');
    await pushed(image, `docker://${host}/team/app:docker`, '--dest-tls-verify=false', '--format=v2s2');
    await pushed(image, `docker-archive:${image.path}/saved.tar:app:v1`);
    await pushed(image, `oci-archive:${image.path}/archive.tar:one`);
    const registry = { kind: 'registry' } as const;
    expect(await brought(image, { ...registry, reference: `${host}/team/app:oci` }, 'oci')).toEqual(
      whole(image),
    );
    expect(await brought(image, { ...registry, reference: `${host}/team/app:docker` }, 'docker')).toEqual(
      whole(image),
    );
    expect(
      await brought(image, { kind: 'docker-archive', path: join(image.path, 'saved.tar') }, 'saved'),
    ).toEqual(whole(image));
    expect(
      await brought(image, { kind: 'oci-layout', path: join(image.path, 'archive.tar') }, 'archive'),
    ).toEqual(whole(image));
    expect(await brought(image, { kind: 'oci-layout', path: image.layout.path }, 'layout')).toEqual(
      whole(image),
    );
    const name = 'docker.io/library/app:v1';
    expect(
      await brought(
        image,
        { kind: 'docker-archive', path: join(image.path, 'saved.tar'), reference: name },
        'named',
      ),
    ).toEqual(whole(image));
  });

  test('comes by its digest, for its platform, and not for another', async () => {
    const image = await made();
    const { host } = await startRegistry();
    await pushed(image, `docker://${host}/app:v1`, '--dest-tls-verify=false');
    const inspect = ['skopeo', 'inspect', '--tls-verify=false', '--format', '{{.Digest}}'] as const;
    const digest = (await tool([...inspect, `docker://${host}/app:v1`])).trim();
    const from = { kind: 'registry', reference: `${host}/app@${digest}` } as const;
    expect(await image.images.resolve(await image.request(from), work())).toMatchObject({
      digest,
      platform: 'linux/amd64',
      layers: 2,
    });
    await expect(
      image.images.resolve(await image.request(from, 'two', 'linux/arm64'), work()),
    ).rejects.toMatchObject({
      class: 'InvalidArgument',
      data: { platforms: ['linux/amd64'] },
    });
  });

  test('that is kept by a password, behind TLS, comes with a file of credentials or with name and password', async () => {
    const image = await made();
    const [key, cert] = [join(image.path, 'key.pem'), join(image.path, 'cert.pem')];
    const form = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    const subject = ['-subj', '/CN=roost', '-addext', 'subjectAltName=IP:127.0.0.1'];
    await tool(['openssl', 'req', ...form, '-keyout', key, '-out', cert, ...subject]);
    const { host } = await startRegistry({ user: secret, tls: { key, cert } });
    const authFile = join(image.path, 'auth.json');
    await writeFile(
      authFile,
      JSON.stringify({
        auths: {
          [host]: { auth: Buffer.from(`${secret.username}:${secret.password}`).toString('base64') },
        },
      }),
    );
    await pushed(image, `docker://${host}/app:v1`, '--dest-tls-verify=false', `--dest-authfile=${authFile}`);
    const authorities = await readFile(cert, 'utf8');
    const from = { kind: 'registry', reference: `${host}/app:v1`, authorities } as const;
    expect(await brought(image, { ...from, authFile }, 'file')).toEqual(whole(image));
    expect(await brought(image, { ...from, credentials: secret }, 'password')).toEqual(whole(image));
    await expect(bring(image.images, await image.request(from, 'nobody'))).rejects.toMatchObject({
      class: 'InvalidArgument',
    });
    await rm(authFile);
    await expect(
      bring(image.images, await image.request({ ...from, authFile }, 'gone')),
    ).rejects.toMatchObject({
      class: 'InvalidArgument',
      message: expect.stringContaining('there is no such file'),
    });
  });

  test('of a layout is found by its name, and only there', async () => {
    const image = await made();
    await image.layout.image('two', []);
    const from = { kind: 'oci-layout', path: image.layout.path } as const;
    const resolve = async (origin: OciOrigin, id: string): Promise<unknown> =>
      await image.images.resolve(await image.request(origin, id), work());
    await expect(resolve(from, 'a')).rejects.toMatchObject({
      class: 'InvalidArgument',
      data: { names: ['one', 'two'] },
    });
    expect(await resolve({ ...from, reference: 'one' }, 'b')).toMatchObject({ layers: 2 });
    expect(await resolve({ ...from, reference: 'two' }, 'c')).toMatchObject({ layers: 0 });
    await expect(resolve({ ...from, reference: 'three' }, 'd')).rejects.toMatchObject({ class: 'NotFound' });
    await expect(resolve({ ...from, path: '/nonexistent' }, 'e')).rejects.toMatchObject({
      class: 'NotFound',
    });
    await expect(resolve({ ...from, path: image.path }, 'f')).rejects.toMatchObject({
      class: 'InvalidArgument',
    });
    await expect(resolve({ ...from, path: '/etc/passwd' }, 'g')).rejects.toMatchObject({
      class: 'InvalidArgument',
    });
    await expect(resolve({ ...from, path: '/dev/zero' }, 'h')).rejects.toMatchObject({
      class: 'InvalidArgument',
    });
  });

  test('whose layout links to files of the host gives nothing of them', async () => {
    const image = await made();
    const from = { kind: 'oci-layout', path: join(image.path, 'evil') } as const;
    const shadow = join(image.path, 'secret');
    await writeFile(shadow, 'a secret of the host');
    const evil = await Layout.make(from.path);
    const layer = await evil.layer(await archiveOf(join(image.path, 'tree-1'), join(image.path, 'evil.tar')));
    await evil.image('one', [layer]);
    await tool(['ln', '-sf', shadow, evil.pathOf(layer.descriptor.digest)]);
    const error: unknown = await bring(image.images, await image.request(from)).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ class: 'InvalidArgument' });
    await tool(['ln', '-sf', shadow, join(from.path, 'index.json')]);
    const other: unknown = await bring(image.images, await image.request(from, 'two')).catch(
      (thrown: unknown) => thrown,
    );
    expect(other).toMatchObject({ class: 'InvalidArgument' });
    expect(JSON.stringify([error, other, String(error), String(other)])).not.toContain('a secret');
  });
});

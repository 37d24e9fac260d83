/** The guest that `make run` ends in, by the image that was asked for: its spec, when it is up, and how to log in. */
import { readdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { GuestSpecInput } from '../protocol/guest.ts';
import { MEBIBYTE } from '../protocol/types.ts';

/** Label of a guest that says which image `make run` made it of. */
export const IMAGE_LABEL = 'roost/image';

export interface FirstGuest {
  readonly image: 'debian' | 'small';
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: Pick<GuestSpecInput, 'memoryBytes' | 'cpu' | 'disks' | 'cloudInit'>;
  /** What the console shows when one can log in. */
  readonly up: RegExp;
  /** Whether the end of what the console shows is worth a look. */
  readonly showsEnd: boolean;
  /** A sentence or two. */
  readonly login: string;
  /** Further lines of what to try where the host can reach it at an address. */
  readonly more: readonly string[];
}

const USER = 'debian';
/** Of the password roost, by `mkpasswd -m sha512crypt`. The guest is on a network of this host alone. */
const PASSWORD_HASH =
  '$6$roostroost$Ull2xOiHpYcAqjB0MUc4DmuPuvDweC2BbRHQ8ERdj3.JmAM0ZlI8vZt2JXcRjbs2uUjNkPWfeIp4geHHWLsQ90';

/** The public keys of whoever runs this, so that ssh needs no password. */
const ownKeys = async (): Promise<string[]> => {
  const directory = join(homedir(), '.ssh');
  const names = await readdir(directory).catch(() => []);
  const files = names.filter((name) => /^id_[a-z0-9_]+\.pub$/.test(name)).sort();
  return await Promise.all(files.map(async (name) => (await readFile(join(directory, name), 'utf8')).trim()));
};

const small: FirstGuest = {
  image: 'small',
  labels: { [IMAGE_LABEL]: 'small' },
  spec: { memoryBytes: 256 * MEBIBYTE, disks: [{ image: 'small', sizeBytes: 1024 * MEBIBYTE }] },
  up: /[a-z0-9-]+ login: *$/m,
  showsEnd: true,
  login: 'Log in on the console as root with the password roost.',
  more: [],
};

const debian = (sshKeys: string[]): FirstGuest => ({
  image: 'debian',
  labels: { [IMAGE_LABEL]: 'debian', 'ssh-user': USER },
  spec: {
    memoryBytes: 1024 * MEBIBYTE,
    cpu: { count: 2 },
    disks: [{ image: 'debian', sizeBytes: 8192 * MEBIBYTE }],
    cloudInit: {
      user: USER,
      passwordHash: PASSWORD_HASH,
      ...(sshKeys.length === 0 ? {} : { sshKeys }),
    },
  },
  // The last word of cloud-init: only then the user and the keys are there for certain.
  up: /Cloud-init v\. \S+ finished/,
  showsEnd: false,
  login: `Debian 12 is up. Log in as ${USER} with the password roost${sshKeys.length === 0 ? '' : ', or by ssh with your own key'}.`,
  more: ['bin/roost ssh first          # a shell in it, by ssh'],
});

/** Throws for an image that `make run` does not know. */
export const firstGuestOf = async (image: string): Promise<FirstGuest> => {
  if (image === 'small') return small;
  if (image === 'debian') return debian(await ownKeys());
  throw new Error(`There is no image ${image}: IMAGE is debian or small`);
};

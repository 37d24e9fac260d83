/**
 * Containers on a real host: Debian's own kernel, systemd, control groups of version 2 alone, AppArmor, and the daemon under its
 * hardened unit. They live beside the guests of the test that the host is made for.
 */
import { rm } from 'node:fs/promises';
import { expect } from 'vitest';
import { busyboxRoot } from '../harness/busybox-root.ts';
import { makeDirectory } from '../harness/test-directory.ts';
import type { Host } from './debian-host.ts';

/** Lines of a script that know a container: `$id`, `$pid` of its warden, `$init`, `$group`, and `lxc PROGRAM`. */
const about = (name: string): string => `
  of() { roost show ${name} --json | python3 -c "import json,sys; print(json.load(sys.stdin)$1)"; }
  id=$(of "['id']")
  lxc() { "$@" -P /var/lib/roost/guests -n $id; }
  pid=$(of "['process']['pid']")
  init=$(lxc lxc-info -p -H)
  group=$(echo /sys/fs/cgroup/roost-*-$id/payload)
`;

/** What containers have on a host besides files and links. */
export const CONTAINERS_LEFT = [
  'pidof roost-warden lxc-start lxc-attach || true',
  'ls --directory /sys/fs/cgroup/roost-* 2>/dev/null || true',
  'grep "^lxc-.*_" /sys/kernel/security/apparmor/profiles || true',
].join('; ');

/** Waits until a container has said the words on its console so many times, from the first on. */
const said = (name: string, words: string, count: number): string =>
  `exec 3< <(roost logs --follow ${name} 2>/dev/null); grep --quiet --max-count=${count} "${words}" <&3; kill $!`;

/** Imports busybox and makes `cage`, which the host begins by itself. */
export const makeContainer = async (host: Host): Promise<void> => {
  expect(await host.run('uname -r; stat --file-system --format=%T /sys/fs/cgroup')).toMatch(
    /^6\.1\..*\ncgroup2fs\n$/,
  );
  // A bridge and a server of names of liblxc's own, wanted by its other unit; Roost has no use for them.
  await host.run('systemctl mask --now lxc-net 2>&1');
  const directory = await makeDirectory('busybox');
  await host.put(await busyboxRoot(directory));
  await rm(directory, { recursive: true });
  expect(await host.run('roost host')).toMatch(
    /^Containers: +yes: liblxc 5\S+, control groups v2, no lxcfs, AppArmor, images are unpacked$/m,
  );
  const spec = '--root busybox --network inner --memory 64MiB --processes 100 --autostart --start';
  await host.run(
    `roost image import busybox --kind root /tmp/busybox.tar && roost create cage ${spec} && roost wait cage`,
  );
};

/** What holds a container, and how it is used. */
export const useContainer = async (host: Host): Promise<void> => {
  const inCage = (script: string): Promise<string> =>
    host.run(`code=0; roost exec cage sh -c '${script}' || code=$?; echo "code $code"`);
  expect(await inCage('hostname; cat /proc/self/cgroup; exit 7')).toBe('cage\n0::/.lxc\ncode 7\n');
  expect(await inCage('ping -c 1 -W 60 10.77.0.1 >/dev/null')).toBe('code 0\n');

  // Its profile of AppArmor, its range of ids, its own groups, and its warden's scope.
  expect(
    await host.run(`${about('cage')}
      cat /proc/$init/attr/current; grep ^Uid: /proc/$init/status | cut -f 2
      cut -d / -f 3- /proc/$init/cgroup; grep -o 'roost-[^/]*$' /proc/$pid/cgroup
      grep NoNewPrivs: /proc/$init/status; cat $group/memory.max $group/pids.max`),
  ).toMatch(
    /^lxc-[0-9a-f-]{36}_<.*> ?.*\(enforce\)\n1[0-9]{9}\npayload\/guest\nroost-[a-z0-9]{5}-[0-9a-f-]{36}\.scope\nNoNewPrivs:\t0\n67108864\n100\n$/,
  );
  expect(
    await host.run(`${about('cage')}
      roost update cage --memory 96MiB --processes 50 --cpus 1; cat $group/memory.max $group/pids.max $group/cpu.max
      roost pause cage; grep frozen $group/cgroup.events; lxc lxc-info -s -H
      roost resume cage; grep frozen $group/cgroup.events; lxc lxc-info -s -H`),
  ).toBe(
    [
      'cage updated\n100663296\n50\n100000 100000',
      'cage paused\nfrozen 1\nFROZEN',
      'cage resumed\nfrozen 0\nRUNNING\n',
    ].join('\n'),
  );

  // It begins again by itself, and a console carries both ways until its guest has ended.
  await host.run(`roost exec cage reboot -f || true; ${said('cage', 'busybox is up', 2)}`);
  const parrot = 'stty raw -echo; echo speak; read words; echo "heard $words"';
  await host.run(`roost create parrot --root busybox --init /bin/sh --init -c --init '${parrot}' --start`);
  expect(await host.run('echo hello | roost console parrot')).toContain('heard hello');
  await host.run('roost wait --until stopped parrot && roost delete parrot');
  await host.run('roost stop cage && roost start cage && roost wait cage');
};

export const containerPid = async (host: Host): Promise<string> =>
  await host.run(`${about('cage')}\necho $pid`);

/** The same process, which answers. */
export const containerLivesOn = async (host: Host, pid: string): Promise<void> => {
  expect(await containerPid(host)).toBe(pid);
  expect(await host.run('roost wait cage >/dev/null; roost exec cage hostname; roost fsck')).toMatch(
    /^cage\nLedger and host agree on \d+ objects\.\n$/,
  );
};

/** Killed while nobody looks, it is gone all the same, and the next daemon clears it away and begins it again. */
export const killContainer = async (host: Host): Promise<void> => {
  await host.run(`${about('cage')}
    systemctl stop roostd.socket roostd.service
    kill -9 $pid
    tail --pid=$init --follow /dev/null
    systemctl start roostd.socket roostd.service`);
  expect(await host.run('roost show cage --json')).toContain('"state": "failed"');
  expect(await host.lines(CONTAINERS_LEFT)).toEqual([]);
  await host.run('roost start cage && roost wait cage');
};

#!/bin/sh
# Installs what building, testing and running needs and this machine lacks: Debian packages (as root; otherwise it
# prints the one command to run and stops), then the npm packages. Where nothing is missing it does nothing.
set -eu
cd "$(dirname "$0")/.."

log=build/prerequisites.log
PATH="$PATH:/usr/sbin:/sbin"

say() { printf '==> %s\n' "$*"; }

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# Runs a command with its output in the log; shows the log's end when it fails.
quietly() {
  if "$@" >"$log" 2>&1 </dev/null 9>&-; then return; fi
  tail -n 40 "$log" >&2
  fail "Failed: $*" "All of its output is in $log."
}

check_node() {
  command -v node >/dev/null || fail \
    'Node.js is missing. Roost needs version 20.19 or later, which Debian 12 does not have:' \
    'take it from https://nodejs.org/en/download or https://github.com/nodesource/distributions'
  node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
           process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' || fail \
    "Node.js $(node -p process.versions.node) is too old: Roost needs 20.19 or later." \
    'Take it from https://nodejs.org/en/download or https://github.com/nodesource/distributions'
  command -v npm >/dev/null || fail 'npm is missing; it belongs to Node.js. On Debian: apt-get install npm'

  node_prefix=$(node -p 'path.dirname(path.dirname(fs.realpathSync(process.execPath)))')
  [ -e "$node_prefix/include/node/node.h" ] || fail \
    "Node's headers are missing: there is no $node_prefix/include/node/node.h" \
    "NodeSource's package \"nodejs\" and the archives of nodejs.org have them. For this Node, unpack" \
    "https://nodejs.org/dist/$(node -p process.version)/node-$(node -p process.version)-headers.tar.gz" \
    "so that its include/node becomes $node_prefix/include/node."
}

# Adds a package to the missing ones unless its program or file is there.
missing=
need_program() { command -v "$2" >/dev/null || missing="$missing $1"; }
need_file() { [ -e "$2" ] || missing="$missing $1"; }

find_missing_packages() {
  need_program qemu-system-x86 qemu-system-x86_64
  need_program qemu-utils qemu-img
  need_file seabios /usr/share/seabios/bios-256k.bin
  need_program xorriso xorriso
  need_program dnsmasq-base dnsmasq
  need_program nftables nft
  need_program iproute2 ip
  need_program e2fsprogs mke2fs
  need_program mmdebstrap mmdebstrap
  need_program fdisk sfdisk
  need_program dosfstools mkfs.vfat
  need_program mtools mcopy
  need_program squashfs-tools mksquashfs
  need_program lxc lxc-start
  need_program lxcfs lxcfs
  need_program lz4 lz4
  need_file ovmf /usr/share/OVMF/OVMF_CODE_4M.fd
  need_program gcc gcc
  need_file libc6-dev /usr/include/stdio.h
  need_program g++ g++
  need_program make make
  need_program curl curl
  need_program squashfs-tools sqfstar
  need_program zstd zstd
  need_file ca-certificates /etc/ssl/certs/ca-certificates.crt
  need_program openssl openssl
  need_program xz-utils xz
  need_program busybox-static busybox
  need_program python3 python3
  need_program systemd systemd-analyze
  need_program dpkg dpkg-deb
  need_program docker-registry docker-registry
  need_program skopeo skopeo
  need_program umoci umoci
}

# The small image is made of packages that are fetched but not installed; apt has to know of them.
has_package_lists() {
  for list in /var/lib/apt/lists/*_Packages*; do
    [ -e "$list" ] && return 0
  done
  return 1
}

install_packages() {
  find_missing_packages
  commands=
  has_package_lists && [ -z "$missing" ] && return
  command -v apt-get >/dev/null || fail "Missing:$missing. These are names of Debian packages; install yours of the kind."

  if [ "$(id -u)" -ne 0 ]; then
    commands='sudo apt-get update'
    [ -z "$missing" ] || commands="$commands && sudo apt-get install -y --no-install-recommends$missing"
    fail "$commands"
  fi
  say 'apt-get update'
  quietly apt-get -q update
  [ -z "$missing" ] && return
  say "apt-get install$missing"
  # Unquoted on purpose: one word for each package.
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive quietly apt-get -q install -y --no-install-recommends $missing
}

# What node_modules has to fit: the lock file, and the Node that addons were compiled for.
wanted_stamp() {
  printf '%s node-abi-%s\n' "$(sha256sum <package-lock.json | cut -d ' ' -f 1)" "$(node -p process.versions.modules)"
}

is_installed() {
  [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted_stamp)" ] && return 0
  # Somebody ran npm by hand: good, if it was after the last change and the one compiled package loads.
  [ node_modules/.package-lock.json -nt package-lock.json ] &&
    node -e 'new (require("better-sqlite3"))(":memory:").close()' 2>/dev/null
}

install_npm_packages() {
  stamp=node_modules/.roost-installed
  if ! is_installed; then
    say 'npm ci (compiles SQLite; a minute or two)'
    # Compiles against the headers of the Node that runs, whatever anyone has configured.
    npm_config_nodedir="$node_prefix" quietly npm ci --no-audit --no-fund --loglevel=error
  fi
  wanted_stamp >"$stamp"
}

check_node
mkdir -p build
# One at a time; a second one then finds that nothing is missing.
exec 9>build/.prerequisites.lock
flock 9
install_packages
install_npm_packages

#!/usr/bin/env bash
# Makes the Dockerfile's base image where no image registry is reachable: base.sh [TAG]. Debian by debootstrap, and what
# this machine builds with: its Rust toolchain, its certificates, its cargo configuration, its compiled RocksDB.
set -euo pipefail
cd "$(dirname "$0")/../.."
tag="${1:-$(sed -n 's/^FROM \(rust:[^ ]*\) .*/\1/p' deploy/docker/Dockerfile)}"
sysroot=$(rustc --print sysroot)
version=$(rustc --version | cut -d' ' -f2)
case "$tag" in
rust:"$version"-*) ;;
*) echo "error: $tag is not this machine's Rust, which is $version" >&2; exit 1 ;;
esac

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$root" >"$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; exit 1; }
rm -rf "$root.log" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar -C "$sysroot" --exclude=./share --exclude=./lib/rustlib/src -c . | tar -C "$root/usr/local" -x --no-same-owner
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

mkdir -p "$root/usr/local/cargo" "$root/var/cache"
configuration="${CARGO_HOME:-$HOME/.cargo}/config.toml"
[ ! -f "$configuration" ] || cp "$configuration" "$root/usr/local/cargo/"
compiled="${XDG_CACHE_HOME:-$HOME/.cache}/seriatim"
[ ! -d "$compiled" ] || cp -r "$compiled" "$root/var/cache/seriatim"

tar -C "$root" -c . | docker import -c 'ENV CARGO_HOME=/usr/local/cargo XDG_CACHE_HOME=/var/cache' - "$tag"

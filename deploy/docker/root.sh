#!/usr/bin/env bash
# Lays out the image's root: root.sh BINARY DIRECTORY. The binary without its debug information, every library that it
# loads, and the few files that the C library reads.
set -euo pipefail
binary="$1"
root="$2"
mkdir -p "$root"/usr/bin "$root"/usr/lib "$root"/etc "$root"/tmp "$root"/var/lib/seriatim
chmod 1777 "$root"/tmp

objcopy --strip-debug "$binary" "$root"/usr/bin/seriatim

# the loader is named by its place, libraries are found in the loader's own folders
ldd "$binary" | sed -n 's/^\t\(.* => \)\?\(\/[^ ]*\) (0x.*/\2/p' | while read -r library; do
    case "$library" in
    */ld-linux*) install -D "$library" "$root$library" ;;
    *) install -D -m 644 "$library" "$root/usr/lib/$(basename "$library")" ;;
    esac
done

echo 'seriatim:x:65532:65532::/var/lib/seriatim:/sbin/nologin' >"$root"/etc/passwd
echo 'seriatim:x:65532:' >"$root"/etc/group
echo 'hosts: files dns' >"$root"/etc/nsswitch.conf

# proof that nothing is missing: the binary starts with this root as its only one
chroot "$root" /usr/bin/seriatim --version

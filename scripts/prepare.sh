# Sourced by ./demo, ./test and .ci/run: installs what the build needs, keeps RocksDB's library so that it is compiled
# once per machine and not once per checkout, and finds or fetches libz3.

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
stop() { printf 'error: %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null 2>&1 || stop "no Rust toolchain: install one with rustup (rustup.rs), then run this again"

# RocksDB is C++, and its bindings are made with libclang. The last two fetch libz3.
install_packages() {
    local missing=() package
    for package in build-essential clang libclang-dev pkg-config git python3 python3-pip; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null 2>&1 || stop "install by hand: ${missing[*]} (this is neither Debian nor Ubuntu)"
    say "Installing ${missing[*]}"
    local as_root=""
    [ "$(id -u)" -eq 0 ] || as_root="sudo"
    $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >&2 ||
        stop "installing ${missing[*]} failed"
}

# The library depends on its version, the compiler and our flags; the cache's folder is named after all of them.
rocksdb_cache() {
    local version key
    version=$(grep -A1 'name = "librocksdb-sys"' Cargo.lock | sed -n 's/version = "\(.*\)"/\1/p')
    key=$( (c++ --version | head -1; uname -m; cat .cargo/config.toml) | cksum | cut -d' ' -f1)
    printf '%s/seriatim/rocksdb-%s-%s' "${XDG_CACHE_HOME:-$HOME/.cache}" "$version" "$key"
}

use_cached_rocksdb() {
    [ -z "${ROCKSDB_LIB_DIR:-}" ] || return 0
    local cache
    cache=$(rocksdb_cache)
    if [ -f "$cache/librocksdb.a" ]; then
        export ROCKSDB_LIB_DIR="$cache" ROCKSDB_STATIC=1
    else
        say "RocksDB is compiled once on this machine; that takes about ten minutes on two cores."
    fi
}

keep_rocksdb() {
    [ -z "${ROCKSDB_LIB_DIR:-}" ] || return 0
    local cache built
    cache=$(rocksdb_cache)
    built=$(find "${CARGO_TARGET_DIR:-target}/release/build" -path '*librocksdb-sys-*/out/librocksdb.a' 2>/dev/null | head -1)
    [ -n "$built" ] || return 0
    mkdir -p "$cache" && cp "$built" "$cache/librocksdb.a.$$" && mv "$cache/librocksdb.a.$$" "$cache/librocksdb.a"
}

# The version that is fetched where the system has none, or one older than the bindings want.
Z3_VERSION=5.4.0
Z3_VERSION_MIN=4.13.3

libz3_cache() {
    printf '%s/seriatim/libz3-%s-%s' "${XDG_CACHE_HOME:-$HOME/.cache}" "$Z3_VERSION" "$(uname -m)"
}

# The wheel `z3-solver` holds the library as its makers build it.
fetch_libz3() {
    local cache="$1" unpacked
    say "Fetching libz3 $Z3_VERSION"
    unpacked=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$unpacked" "z3-solver==$Z3_VERSION.*" >&2 &&
        python3 -m zipfile -e "$unpacked"/*.whl "$unpacked" &&
        mkdir -p "$cache" && cp "$unpacked"/z3/lib/libz3.so* "$cache/" ||
        stop "libz3 $Z3_VERSION_MIN or newer is missing: install it, and set Z3_LIBRARY_PATH_OVERRIDE to its folder"
    rm -rf "$unpacked"
}

use_libz3() {
    [ -z "${Z3_LIBRARY_PATH_OVERRIDE:-}" ] || return 0
    pkg-config --atleast-version="$Z3_VERSION_MIN" z3 2>/dev/null && return 0
    local cache
    cache=$(libz3_cache)
    [ -f "$cache/libz3.so" ] || fetch_libz3 "$cache"
    export Z3_NO_PKG_CONFIG=1 Z3_LIBRARY_PATH_OVERRIDE="$cache" Z3_SYS_Z3_VERSION="$Z3_VERSION"
}

prepare() {
    install_packages
    use_cached_rocksdb
    use_libz3
}

# Tests that need a program which is not installed say so in this list, which is printed at the end: of ./test, or of .ci/run,
# which runs more than it.
list_what_is_skipped() {
    [ -z "${SERIATIM_SKIPPED_LIST:-}" ] || return 0
    SERIATIM_SKIPPED_LIST=$(mktemp)
    export SERIATIM_SKIPPED_LIST
    trap print_what_was_skipped EXIT
}

print_what_was_skipped() {
    say "Skipped: $(wc -l <"$SERIATIM_SKIPPED_LIST")"
    sed 's/^/  /' "$SERIATIM_SKIPPED_LIST" >&2
    rm -f "$SERIATIM_SKIPPED_LIST"
}

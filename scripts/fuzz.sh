#!/usr/bin/env bash
# Runs every fuzz target for so many seconds (60 without an argument), one after the other, and prints a line of a table
# for each. Needs cargo-fuzz. A crash ends it, and leaves the input in the target's artifacts.
#   scripts/fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/prepare.sh
use_cached_rocksdb
seconds=${1:-60}
echo "| Target | Seconds | Executions |"
echo "|---|---|---|"
for crate in ledger checker node; do
    for target in $(cd "$crate/fuzz/fuzz_targets" && ls -- *.rs); do
        name=${target%.rs}
        report=$(cd "$crate/fuzz" && cargo fuzz run --fuzz-dir . --sanitizer none "$name" -- \
            -max_total_time="$seconds" -print_final_stats=1 -rss_limit_mb=4096 2>&1) ||
            { printf '%s\n' "$report" | tail -40 >&2; stop "$crate/$name failed"; }
        count=$(printf '%s\n' "$report" | sed -n 's/^stat::number_of_executed_units: *//p')
        echo "| \`$crate/fuzz\` $name | $seconds | $count |"
    done
done

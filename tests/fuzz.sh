#!/usr/bin/env bash
# Runs every fuzz target for the given seconds, 60 if none are given, under AddressSanitizer; stops at the first finding.
# FUZZ_ONLY="frame token" runs these.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/target/tools/bin"
seconds=${1:-60}

command -v cargo-fuzz >/dev/null || {
    echo "fetching and building cargo-fuzz"
    cargo install --quiet --locked --root target/tools --target-dir target/tools/build cargo-fuzz
    rm -rf target/tools/build
}
# Coverage and the sanitizer are for nightly compilers; a stable one has the same and takes their flags with this.
export RUSTC_BOOTSTRAP=1
# Function tables are in each of a program's parts, which the sanitizer takes for several definitions.
export ASAN_OPTIONS=detect_odr_violation=0

targets=${FUZZ_ONLY:-$(cargo fuzz list)}
for target in $targets; do
    echo "== $target: $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
echo "no finding in $(wc -w <<<"$targets") targets, $seconds s each"

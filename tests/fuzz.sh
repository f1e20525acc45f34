#!/usr/bin/env bash
# Runs every fuzz target for the given seconds, 60 if none are given; stops at the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/target/tools/bin"
seconds=${1:-60}

cargo +nightly --version >/dev/null 2>&1 ||
    { echo "fuzzing needs a nightly toolchain: run 'rustup toolchain install nightly'" >&2; exit 1; }
command -v cargo-fuzz >/dev/null ||
    { echo "fuzzing needs cargo-fuzz: run 'cargo install --locked --root target/tools cargo-fuzz'" >&2; exit 1; }

targets=$(cargo +nightly fuzz list)
for target in $targets; do
    echo "== $target: $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
echo "no finding in $(wc -w <<<"$targets") targets, $seconds s each"

#!/usr/bin/env bash
# Everything that `make test` checks, one step after the other. A step that fails does not keep the
# others from running; the summary at the end tells what each step came to.
set -uo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp)
trap 'rm -f "$output"' EXIT
summary=()
failed_steps=0

# step NAME COMMAND...: runs the command, keeps its outcome for the summary.
step() {
    local name=$1 began=$SECONDS outcome=ok
    shift
    printf '\n== %s\n' "$name"
    "$@" </dev/null 2>&1 | tee -a "$output" || { outcome=FAILED; failed_steps=$((failed_steps + 1)); }
    summary+=("$(printf '%-32s %-6s %5d s' "$name" "$outcome" $((SECONDS - began)))")
}

# total WORD: sums up what cargo's closing lines say of passed, failed or ignored tests.
total() { sed -nE "s/^test result: .* ([0-9]+) $1.*/\1/p" "$output" | awk '{ n += $1 } END { print n + 0 }'; }

printf '== tools\n'
tests/install-tools.sh </dev/null || exit 1

step "formatting" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets -- -D warnings
step "dependencies" tests/check-dependencies.sh
step "unit tests" cargo test --workspace --lib --bins --no-fail-fast
step "documentation examples" cargo test --doc
step "release build" cargo build --release --workspace
step "instructions per operation" cargo run --quiet --release --package tidegate-instructions
export TEST_SERVER_PROGRAM=$PWD/target/release/tidegate
step "simulation and black-box tests" cargo test --no-fail-fast --test '*'
step "Autobahn test suite, short" tests/conformance/run.sh short
step "under systemd" make --no-print-directory test-systemd
step "kernel TLS in a guest" make --no-print-directory test-kernel-tls
step "bytes per connection" make --no-print-directory gate-memory
step "20,000 clients in a guest" make --no-print-directory million N=20000 MACHINE=uml

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
printf 'tests: %d passed, %d failed, %d skipped\n' "$(total passed)" "$(total failed)" "$(total ignored)"
[ "$failed_steps" -eq 0 ]

#!/usr/bin/env bash
# Runs what touches `src/uring`, the one module with unsafe code, under AddressSanitizer: its unit tests against the real
# kernel, a shard's thread, and black-box traffic through a server that is built with it. An access beyond a buffer or
# after its end fails the test that made it. Leaks are not looked for: threads end with the process.
# Miri is no help here: it knows no io_uring.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
# A folder of its own, so that the usual builds stay as they are.
export CARGO_TARGET_DIR=$PWD/target/sanitize
# The sanitizer's flag is for nightly compilers; a stable one has the same and takes it with this.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
export CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_TEST_DEBUG=line-tables-only
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1

libraries=$(rustc --print sysroot)/lib/rustlib/$target/lib
compgen -G "$libraries/librustc*_rt.asan.a" >/dev/null ||
    { echo "this toolchain has no AddressSanitizer for $target: see $libraries" >&2; exit 1; }

# The flag must not reach build scripts and procedural macros: with --target it does not.
cargo test --target "$target" --package tidegate --lib -- uring:: shard::listener
cargo build --target "$target" --package tidegate --bin tidegate
server=$CARGO_TARGET_DIR/$target/debug/tidegate

# Proof that the sanitizer is in it, and not only asked for.
grep -q __asan_report_load "$server" || { echo "the server was built without AddressSanitizer" >&2; exit 1; }

unset RUSTC_BOOTSTRAP RUSTFLAGS CARGO_TARGET_DIR
for file in ${SANITIZE_ONLY:-websocket delivery slow_consumers shutdown reload}; do
    TEST_SERVER_PROGRAM=$server cargo test --test "$file"
done
echo "no finding of AddressSanitizer"

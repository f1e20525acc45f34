#!/usr/bin/env bash
# `make test-kernel-tls`: the tests of TLS on a kernel that seals and opens records itself.
#
# Boots Debian's kernel as a process of the host (user-mode Linux), which sees the host's files and cannot change them,
# loads its module `tls`, and runs there:
#   tests/kernel_tls.rs, and tests/tls.rs with client.tls.kernel on (the host runs it with client.tls.kernel off);
#   a measurement of what an idle connection costs the server and the kernel, in each of these ways.
# tests/tls.rs needs the tools of `make test-tools`.
# Nothing is installed, and no setting of the host changes: the kernel is unpacked below target/million/, as for
# `make million`.
#
#   KERNEL=FILE MODULES=FOLDER   another `linux` program with its modules, BUSYBOX=FILE another static busybox
#   TEST_SERVER_PROGRAM=FILE     another server than the quick build
set -euo pipefail
cd "$(dirname "$0")/../.."

work=target/million
guest_mib=1536
# Silence on the console after which the guest is given up.
silence_seconds=300

stop() {
    printf 'make test-kernel-tls: %s\n' "$@" >&2
    exit 1
}

# shellcheck source=loadtest/million/packages.sh
. loadtest/million/packages.sh

# build TEST: builds a test program and prints its path.
build() {
    local output
    output=$(cargo test --package tidegate --test "$1" --no-run 2>&1) || stop "$output"
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$output"
}

[ "$(uname -m)" = x86_64 ] || stop "the guest is an x86-64 machine and runs this machine's own build; this is $(uname -m)"
mkdir -p "$work"
find_user_mode_kernel
find_busybox
modules=${MODULES:-$(compgen -G "$work/user-mode/usr/lib/uml/modules/*" | head -n 1)}
[ -e "$modules/kernel/net/tls/tls.ko" ] || stop "$modules has no kernel/net/tls/tls.ko"
tls=$(build tls)
kernel_tls=$(build kernel_tls)

began=$SECONDS
memory_folder=/dev/shm
(($(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1) > guest_mib)) || memory_folder=$PWD/$work
exec {console}< <(TMPDIR=$memory_folder exec "$kernel" "mem=${guest_mib}M" root=none rootfstype=hostfs ro \
    init="$PWD/tests/kernel-tls/init" con=null con0=null,fd:1 ssl=null quiet panic=-1 \
    FOLDER="$PWD" BUSYBOX="$(realpath "$busybox")" MODULES="$(realpath "$modules")" TLS="$(realpath "$tls")" \
    KERNEL_TLS="$(realpath "$kernel_tls")" TEST_SERVER_PROGRAM="${TEST_SERVER_PROGRAM:-$PWD/target/debug/tidegate}" \
    PATH="$PATH" </dev/null 2>&1)
guest=$!
trap 'kill "$guest" 2>/dev/null || true' EXIT
outcome=1
while IFS= read -r -t $silence_seconds -u "$console" line; do
    line=${line%$'\r'}
    printf '%s\n' "$line"
    [ "$line" != "guest: all is well" ] || outcome=0
done
say "the guest took $((SECONDS - began)) s"
exit $outcome

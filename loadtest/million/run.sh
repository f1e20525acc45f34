#!/usr/bin/env bash
# `make million`: a million connected, subscribed clients in a virtual machine of its own.
#
# Boots Debian's kernel with an initramfs that holds the server, the load tester and a shell, gives
# the guest the limits and kernel settings of tuning/, opens N clients, measures their memory,
# publishes once to all of them, and fails unless everyone got it. Nothing is installed, and no
# setting of the host changes: kernel and shell are unpacked below target/million/, and the guest has
# no disk and no network. Its reports come back through a folder of the host's, or from qemu over its
# second serial port.
#
#   N=20000       clients; 1000000 is the most that tuning/limits.conf has descriptors for
#   MACHINE=uml   kvm: qemu with hardware virtualisation, as many cores as the host has;
#                 uml: the kernel as a process of the host (user-mode Linux), one core, no qemu;
#                 tcg: qemu with an emulated processor, some 2 ms per client;
#                 default: kvm if qemu is here and KVM boots the kernel, otherwise uml
#   KERNEL=FILE   another kernel image than Debian's (uml: another `linux` program), BUSYBOX=FILE
#                 another static busybox: neither is fetched then
#
# Bytes per connection are the kernel's and the server's own, whatever runs the guest. Times and CPU
# are a machine's with kvm alone: a system call costs more in the other two.
set -euo pipefail
cd "$(dirname "$0")/../.."

clients=${N:-1000000}
work=target/million
reports=target/reports
clients_max=1000000
# Both ends of a connection, the tester's own memory, a message on its way; and what a guest has besides.
bytes_per_client=15000
guest_mib_min=768
# Silence on the console after which the guest is given up.
silence_seconds=900
# A virtual processor that is one shows the kernel's first line sooner.
probe_seconds=15

stop() {
    printf 'make million: %s\n' "$@" >&2
    exit 1
}

# shellcheck source=loadtest/million/packages.sh
. loadtest/million/packages.sh

has_qemu() { command -v qemu-system-x86_64 >/dev/null; }

check_host() {
    [[ $clients =~ ^[1-9][0-9]*$ ]] && ((clients <= clients_max)) ||
        stop "N=$clients: a number of clients up to $clients_max is expected"
    [ "$(uname -m)" = x86_64 ] || stop "the guest is an x86-64 machine and runs this machine's own build; this is $(uname -m)"
    case ${MACHINE:-uml} in
    uml) ;;
    kvm | tcg) has_qemu || stop "qemu is missing: apt-get install --no-install-recommends qemu-system-x86" ;;
    *) stop "MACHINE=$MACHINE: kvm, uml or tcg is expected" ;;
    esac
    guest_mib=$((guest_mib_min + clients * bytes_per_client / 1048576))
    local free_mib
    free_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    ((free_mib >= guest_mib + 512)) ||
        stop "$clients clients need $((guest_mib + 512)) MiB of free memory, this machine has $free_mib;" \
            "fewer clients need less: make million N=$(((free_mib - 512 - guest_mib_min) * 9 / 10 * 1048576 / bytes_per_client))"
}

find_kernel() {
    kernel=${KERNEL:-}
    if [ -z "$kernel" ]; then
        if ! compgen -G "$work/kernel/boot/vmlinuz-*" >/dev/null; then
            local package
            # The package of that name is empty and depends on the present version's.
            package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" && /linux-image-/ { print $2; exit }')
            [ -n "$package" ] || stop "apt-cache knows no linux-image-cloud-amd64: try 'apt-get update' first, or name a kernel: KERNEL=FILE"
            say "fetching $package"
            fetch "$package" "$work/kernel"
        fi
        kernel=$(compgen -G "$work/kernel/boot/vmlinuz-*" | head -n 1)
    fi
    [ -r "$kernel" ] || stop "the kernel $kernel cannot be read"
}

build_initramfs() {
    local root=$work/root program
    rm -rf "$root" && mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp}
    cp "$busybox" "$root/bin/busybox"
    for program in tidegate tidegate-loadtest; do
        cp "target/release/$program" "$root/bin/"
        strip "$root/bin/$program" 2>/dev/null || true
        # Shared libraries and the loader, at the paths that the program names.
        ldd "target/release/$program" | grep --only-matching '/[^ ]*' | while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp --dereference "$library" "$root$library"
        done
    done
    cp loadtest/million/init "$root/init"
    cp loadtest/million/server.toml "$root/etc/tidegate.toml"
    cp tuning/tidegate-sysctl.conf tuning/limits.conf "$root/etc/"
    chmod 755 "$root/init"
    (cd "$root" && find . | "$OLDPWD/$busybox" cpio --create --format newc 2>/dev/null | gzip --fast) >"$work/initramfs.gz"
}

qemu=(qemu-system-x86_64 -nodefaults -display none -no-reboot -serial stdio)

# A /dev/kvm that can be opened may still be one that runs only guests made for it.
kvm_boots() {
    timeout $probe_seconds "${qemu[@]}" -machine q35,accel=kvm -cpu host -m 256 \
        -kernel "$kernel" -append "console=ttyS0 panic=-1" </dev/null 2>&1 | grep --quiet "Linux version"
}

find_machine() {
    machine=${MACHINE:-}
    if [ -z "$machine" ] && has_qemu && [ -w /dev/kvm ]; then
        find_kernel
        kvm_boots && machine=kvm
    fi
    case ${machine:=uml} in
    uml) find_user_mode_kernel ;;
    *) find_kernel ;;
    esac
}

# start_qemu ARGUMENTS: takes the place of the shell that calls it. A panic's `reboot` ends the emulator.
start_qemu() {
    local processor=host arguments=$1
    if [ "$machine" = tcg ]; then
        processor=qemu64
        # What guards a processor's speculation and what clears memory twice costs an emulator most,
        # and saves nobody; its time stamp counter is the host's, and whether its timer works is not to be
        # judged by how long the host lets it wait.
        arguments+=' mitigations=off init_on_alloc=0 tsc=reliable no_timer_check'
    fi
    exec "${qemu[@]}" -machine "q35,accel=$machine" -cpu $processor -smp "$cores" -m "$guest_mib" \
        -serial "file:$work/results.tar" -kernel "$kernel" -initrd "$work/initramfs.gz" -append "console=ttyS0 $arguments"
}

# start_user_mode ARGUMENTS: the same; the guest's memory is a file without a name.
start_user_mode() {
    local memory_folder=/dev/shm
    (($(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1) > guest_mib)) || memory_folder=$PWD/$work
    # shellcheck disable=SC2086 # one word for each of the kernel's arguments
    TMPDIR=$memory_folder exec "$kernel" "mem=${guest_mib}M" "initrd=$work/initramfs.gz" rdinit=/init \
        con=null con0=null,fd:1 ssl=null RESULTS="$PWD/$work/results" $1
}

boot() {
    local cores line patience_seconds=300 outcome=0 began=$SECONDS peak_mib=0 start=start_qemu
    cores=$(($(nproc) < 16 ? $(nproc) : 16))
    case $machine in
    kvm) patience_seconds=30 ;;
    tcg) say "an emulated processor: its times are some twenty times a machine's" ;;
    uml)
        cores=1 start=start_user_mode
        say "user-mode Linux: one core, and its times are some five times a machine's"
        ;;
    esac
    say "$clients clients in a guest of $guest_mib MiB, cores: $cores, machine: $machine"
    rm -rf "$work"/results{,.tar} && mkdir "$work/results"
    exec {console}< <($start "quiet panic=-1 CLIENTS=$clients PATIENCE_SECONDS=$patience_seconds" </dev/null 2>&1)
    guest=$!
    trap 'kill "$guest" 2>/dev/null || true' EXIT
    : >"$work/console.log"
    while true; do
        IFS= read -r -t $silence_seconds -u "$console" line || { outcome=$?; break; }
        line=${line%$'\r'}
        printf '%s\n' "$line" | tee -a "$work/console.log"
        peak_mib=$(awk -v peak="$peak_mib" '/^VmHWM:/ { peak = int($2 / 1024) } END { print peak }' "/proc/$guest/status" 2>/dev/null || echo "$peak_mib")
    done
    # A read that waited in vain says so by a status above 128; 1 is the console's end.
    ((outcome <= 128)) || stop "the guest has said nothing for $silence_seconds seconds; its console: $work/console.log"
    say "the guest took $((SECONDS - began)) s and $peak_mib MiB of this machine's memory"
}

take_results() {
    mkdir -p "$reports"
    [ ! -e "$work/results.tar" ] || tar --extract --file "$work/results.tar" --directory "$work/results" 2>/dev/null || true
    [ -s "$work/results/status" ] ||
        stop "the guest ended without a result; its console's last lines are above, all of it is in $work/console.log"
    for report in "$work"/results/million.*; do
        [ -e "$report" ] && cp "$report" "$reports/"
    done
    say "reports: $reports/million.json and $reports/million.html"
    return "$(<"$work/results/status")"
}

check_host
mkdir -p "$work"
find_machine
find_busybox
cargo build --release --workspace
build_initramfs
boot
take_results

#!/usr/bin/env bash
# Steers a network card's interrupts and queues, and the clock of the cores, for Tidegate's shards.
# Prints what it would do; does it with --apply. Run again, it changes nothing that is right already.
set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'EOF'
Usage: tune.sh [--apply] [--interface NAME] [--shards CORES] [--interrupts CORES]

  --apply              write; without it, only print what would be written
  --interface NAME     the network card clients come through (default: that of the default route)
  --shards CORES       cores with a shard, as in shards.cores: 0-13 or 0,2,4 (default: all)
  --interrupts CORES   cores that take interrupts (default: those without a shard; if there is none,
                       the shards' own)
  --root DIR           work on the files below DIR, for tests

Nothing of it outlives a reboot. Exit codes: 0 done, 1 something could not be written, 2 mistake in
the command line.
EOF
}

apply=no interface='' shards='' interrupts='' root=''
writes=0 failures=0

main() {
    read_arguments "$@"
    local online
    online=$(cat "$root/sys/devices/system/cpu/online" 2>/dev/null) || refuse "$root/sys/devices/system/cpu/online cannot be read"
    shards=$(cores_of "${shards:-$online}" "$online" --shards)
    if [ -n "$interrupts" ]; then
        interrupts=$(cores_of "$interrupts" "$online" --interrupts)
    else
        interrupts=$(without "$(cores_of "$online" "$online" online)" "$shards")
        [ -n "$interrupts" ] || interrupts=$shards
    fi
    [ -n "$interface" ] || interface=$(default_interface)
    [ -n "$interface" ] || refuse "there is no default route; name the network card: --interface NAME (ip -brief link)"
    [ -d "$root/sys/class/net/$interface" ] || refuse "there is no network card $interface (ip -brief link)"

    echo "interface $interface, shards on cores $(join "$shards"), interrupts on cores $(join "$interrupts")"
    steer_interrupts
    spread_receiving
    pin_sending
    set_governor
    warn_of_irqbalance
    finish
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --apply) apply=yes ;;
        --interface | --shards | --interrupts | --root)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) refuse "unknown argument: $1 (tune.sh --help)" ;;
        esac
        shift
    done
}

refuse() {
    echo "error: $1" >&2
    exit 2
}

# Queue N's interrupt goes to the N-th of the interrupts' cores, in turn.
steer_interrupts() {
    local device=$root/sys/class/net/$interface/device folder='' irq name queue
    if [ -d "$device/msi_irqs" ]; then
        folder=$device/msi_irqs
    elif [ -d "$device/../msi_irqs" ]; then # virtio: they are the PCI device's
        folder=$device/../msi_irqs
    else
        echo "skip   interrupts: $interface has none of its own"
        return
    fi
    for irq in $(cd "$folder" && printf '%s\n' * | sort -n); do
        name=$(awk -v irq="$irq:" '$1 == irq { print $NF }' "$root/proc/interrupts" 2>/dev/null || true)
        queue=0
        if [[ ${name%@*} =~ ([0-9]+)$ ]]; then
            queue=$((10#${BASH_REMATCH[1]}))
        fi
        put list "$root/proc/irq/$irq/smp_affinity_list" "$(nth "$interrupts" "$queue")" "interrupt of ${name:-queue $queue}"
    done
}

# With fewer queues than cores for interrupts, the kernel hands packets on to the others (RPS);
# otherwise the card has spread them already, and handing on would only cost.
spread_receiving() {
    local queues=("$root/sys/class/net/$interface/queues"/rx-*) queue wanted=0
    [ -e "${queues[0]}" ] || return 0
    if [ "${#queues[@]}" -lt "$(wc -w <<<"$interrupts")" ]; then
        wanted=$(mask_of "$interrupts")
    fi
    for queue in "${queues[@]}"; do
        put mask "$queue/rps_cpus" "$wanted" "who handles packets of ${queue##*/}"
    done
}

# Each shard's core sends through one queue of its own, so that no two wait for one lock.
pin_sending() {
    local count=0 queue core mine position
    for queue in "$root/sys/class/net/$interface/queues"/tx-*; do
        if [ -e "$queue" ]; then count=$((count + 1)); fi
    done
    if [ "$count" -lt 2 ]; then
        echo "skip   sending: $interface has one queue for all"
        return
    fi
    for ((queue = 0; queue < count; queue++)); do
        mine='' position=0
        for core in $shards; do
            if [ $((position % count)) -eq "$queue" ]; then mine+="$core "; fi
            position=$((position + 1))
        done
        put mask "$root/sys/class/net/$interface/queues/tx-$queue/xps_cpus" "$(mask_of "$mine")" "who sends through tx-$queue"
    done
}

# A core that slows down between two broadcasts pays for it in the latency of the next.
set_governor() {
    local folder found=no
    for folder in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
        [ -e "$folder/scaling_governor" ] || continue
        found=yes
        if grep -qw performance "$folder/scaling_available_governors" 2>/dev/null; then
            put text "$folder/scaling_governor" performance "clock of $(basename "$(dirname "$folder")")"
        else
            echo "skip   $folder/scaling_governor: no governor named performance"
        fi
    done
    [ "$found" = yes ] || echo "skip   governor: the cores' clock is not this system's to set"
}

warn_of_irqbalance() {
    [ -z "$root" ] && command -v systemctl >/dev/null || return 0
    if systemctl --quiet is-active irqbalance 2>/dev/null; then
        echo "note: irqbalance runs and will move the interrupts again: systemctl disable --now irqbalance"
    fi
}

finish() {
    if [ "$failures" -gt 0 ]; then
        echo "$failures could not be written; this needs root, and some drivers refuse" >&2
        exit 1
    fi
    case $writes:$apply in
    0:*) echo "everything is right already" ;;
    *:yes) echo "$writes written" ;;
    *) echo "$writes to write; --apply writes them" ;;
    esac
}

# put KIND FILE VALUE WHAT: makes a file hold a value, if it is there and does not hold it yet.
# KIND says when two values are the same: list (of cores), mask (of cores) or text.
put() {
    local kind=$1 file=$2 value=$3 what=$4 present
    if [ ! -e "$file" ]; then
        echo "skip   $file: not here ($what)"
        return
    fi
    present=$(cat "$file" 2>/dev/null || true)
    if [ "$(normal "$kind" "$present")" = "$(normal "$kind" "$value")" ]; then
        echo "right  $file: $present ($what)"
        return
    fi
    writes=$((writes + 1))
    if [ "$apply" = no ]; then
        echo "would  echo $value > $file ($what; now ${present:-nothing})"
    elif { printf '%s\n' "$value" >"$file"; } 2>/dev/null; then
        echo "wrote  $file: $value ($what; before ${present:-nothing})"
    else
        echo "failed $file: $value ($what)" >&2
        writes=$((writes - 1)) failures=$((failures + 1))
    fi
}

# normal KIND VALUE: a form in which equal values are equal texts.
normal() {
    case $1 in
    list) if is_list "$2"; then expand "$2"; else printf '%s' "$2"; fi ;;
    mask) tr -d ',\n' <<<"$2" | sed -E 's/^0+//' ;;
    text) printf '%s' "$2" ;;
    esac
}

is_list() { [[ $1 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]]; }

# expand LIST: 0-2,5 as 0 1 2 5.
expand() {
    local part
    for part in ${1//,/ }; do
        seq "${part%-*}" "${part#*-}"
    done | sort -nu | xargs
}

# cores_of LIST ONLINE ARGUMENT: the cores of a list, all of which must be there.
cores_of() {
    is_list "$1" || refuse "$3: $1 is no list of cores such as 0-3 or 0,2"
    local cores strangers
    cores=$(expand "$1")
    strangers=$(without "$cores" "$(expand "$2")")
    [ -z "$strangers" ] || refuse "$3: this host has no core $(join "$strangers"), only $2"
    [ -n "$cores" ] || refuse "$3: $1 names no core"
    echo "$cores"
}

# without CORES OTHERS: those of the first that are not among the second.
without() {
    local core rest=''
    for core in $1; do
        [[ " $2 " == *" $core "* ]] || rest+="$core "
    done
    echo "${rest% }"
}

# nth CORES N: the N-th, beginning anew after the last.
nth() {
    local cores
    read -ra cores <<<"$1"
    echo "${cores[$(($2 % ${#cores[@]}))]}"
}

# mask_of CORES: as the kernel writes masks, 32 cores to a word, the highest first.
mask_of() {
    local words=() core index text=''
    for core in $1; do
        index=$((core / 32))
        words[index]=$((${words[index]:-0} | 1 << (core % 32)))
    done
    local highest=0
    for index in "${!words[@]}"; do highest=$index; done
    for ((index = highest; index >= 0; index--)); do
        printf -v text '%s%08x,' "$text" "${words[index]:-0}"
    done
    text=${text%,}
    sed -E 's/^0+([0-9a-f])/\1/' <<<"$text"
}

join() { tr ' ' ',' <<<"$1"; }

default_interface() {
    awk '$2 == "00000000" && $8 == "00000000" { print $1; exit }' "$root/proc/net/route" 2>/dev/null || true
}

main "$@"

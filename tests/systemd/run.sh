#!/usr/bin/env bash
# `make test-systemd`: the Debian package under a real systemd, from its installation to its purge.
#
# A minimal Debian (debootstrap, kept in target/systemd/) boots with systemd-nspawn, whatever this machine's own first
# process is, and is entered with nsenter. It needs root, and nothing of this machine changes.
#
#   PROFILE=release   the build that is packed; dev is quicker to build
#
# The first check that fails ends the run; the server's journal is shown then.
set -Eeuo pipefail
cd "$(dirname "$0")/../.."

work=target/systemd
profile=${PROFILE:-release}
config=/etc/tidegate/tidegate.toml
# For a thing that should happen at once, on a machine that is busy.
patience_seconds=40
passed=0

stop() {
    printf 'make test-systemd: %s\n' "$@" >&2
    exit 1
}

check_host() {
    [ "$(id -u)" -eq 0 ] || stop "only root may boot a guest: sudo make test-systemd"
    local program
    for program in debootstrap systemd-nspawn nsenter lintian; do
        command -v "$program" >/dev/null || stop "$program is missing: run 'make test-tools'"
    done
}

# The host's own release, so that what was built here runs there.
build_base() {
    local suite
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    base=$work/$suite
    [ ! -e "$base/.complete" ] || return 0
    rm -rf "$base" && mkdir -p "$base"
    echo "fetching a minimal Debian $suite"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,redis-tools,procps "$suite" "$base" \
        >"$work/debootstrap.log" 2>&1 || stop "debootstrap failed; see $work/debootstrap.log"
    touch "$base/.complete"
}

boot() {
    mkdir -p "$work/merged"
    unshare --mount tests/systemd/boot.sh "$base" "$work/merged" </dev/null >"$work/console.log" 2>&1 &
    nspawn=$!
    trap 'finish $?' EXIT
    trap 'echo "make test-systemd: line $LINENO failed: $BASH_COMMAND" >&2' ERR
    until_true "the guest's first process" find_guest
    until_true "the guest's boot" has_booted
}

# Degraded: a unit that has nothing to do with the server may fail in a container.
has_booted() {
    local state
    state=$(guest systemctl is-system-running || true)
    [[ $state = running || $state = degraded ]]
}

find_guest() {
    kill -0 "$nspawn" 2>/dev/null || stop "the guest did not start: $(tail -n 3 "$work/console.log")"
    guest=$(pgrep --parent "$nspawn" --exact systemd)
}

finish() {
    if [ "$1" -ne 0 ] && [ -n "${guest:-}" ]; then
        echo "--- the server's journal"
        guest journalctl --unit 'tidegate*' --no-pager --lines 60 --output cat || true
    fi
    if [ -n "${guest:-}" ]; then
        # What a container's first process takes for a power switch.
        kill -s RTMIN+4 "$guest" 2>/dev/null || true
        timeout 20 tail --pid="$nspawn" -f /dev/null || kill -9 "$guest" "$nspawn" 2>/dev/null || true
    fi
    wait "$nspawn" 2>/dev/null || true
    # Its group of processes, which boot.sh made.
    unshare --mount bash -c 'mount -t cgroup2 cgroup2 "$1" && find "$1/tidegate-test-$2" -depth -type d -exec rmdir {} +' \
        - "$work/merged" "$nspawn" || true
}

# Runs a command in the guest.
guest() {
    nsenter --target "$guest" --all -- /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
}

# background NAME COMMAND...: runs it in the guest, as a unit that ends with it; its output is in /root/NAME.
background() {
    local name=$1
    shift
    guest systemctl stop "test-$name" 2>/dev/null || true
    guest systemd-run --quiet --collect --unit "test-$name" --property "StandardOutput=truncate:/root/$name" \
        --property "StandardError=truncate:/root/$name" "$@"
}

# until_true WHAT COMMAND...: asks until the command succeeds.
until_true() {
    local what=$1 end=$((SECONDS + patience_seconds))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || stop "waited $patience_seconds s in vain for $what"
        sleep 0.2
    done
}

property() { guest systemctl show --value --property "$1" "${2:-tidegate.service}"; }

# is PROPERTY VALUE: whether the unit's property has that value.
is() { [ "$(property "$1")" = "$2" ]; }

# has PROPERTY TEXT
has() { [[ "$(property "$1")" == *"$2"* ]]; }

journal_has() { guest journalctl --unit tidegate --no-pager --output cat --since "@$since" | grep -F -- "$1" >/dev/null; }

# From here on, the journal is looked at.
mark() { since=$(date +%s); }

drop_in() {
    guest mkdir -p "/etc/systemd/system/$1.d"
    guest tee "/etc/systemd/system/$1.d/test.conf" >/dev/null
    guest systemctl daemon-reload
}

remove_drop_in() {
    guest rm -r "/etc/systemd/system/$1.d"
    guest systemctl daemon-reload
}

write_config() {
    guest tee "$config" >/dev/null
}

# receives CHANNEL PAYLOAD: whether a client receives what redis-cli publishes.
receives() {
    background heard tidegate tail "$1"
    until_true "$2 in $1" heard "$1" "$2"
    guest systemctl stop test-heard
}

heard() {
    guest redis-cli -p 7400 PUBLISH "$1" "$2" || true
    guest grep -F -- "$2" /root/heard
}

# The server has another process than PROCESS, and serves.
restarted() {
    is ActiveState active && is SubState running && ! is MainPID "$1" && [ "$(property MainPID)" -ne 0 ]
}

ok() {
    passed=$((passed + 1))
    echo "ok: $1"
}

package_is_clean() {
    package=$(PROFILE=$profile systemd/make-deb.sh)
    lintian --fail-on error --suppress-tags-from-file tests/systemd/lintian-tags "$package"
    ok "the package is made, and lintian finds no error"
}

package_installs() {
    guest tee /root/tidegate.deb <"$package" >/dev/null
    guest dpkg --install /root/tidegate.deb >"$work/dpkg.log" 2>&1 || stop "dpkg --install failed:" "$(<"$work/dpkg.log")"
    is ActiveState active || stop "the server is not active after its installation"
    until_true "the status text" has StatusText "clients: 0"
    [ "$(guest systemctl is-enabled tidegate.service)" = enabled ]
    [ "$(guest systemctl is-enabled tidegate.socket || true)" = disabled ]
    [ "$(guest stat --format '%U:%G %a' $config)" = "root:tidegate 640" ]
    [ "$(guest stat --format '%U:%G %a' /run/tidegate)" = "tidegate:tidegate 750" ]
    guest tidegate check-config --strict --config $config >/dev/null
    guest ps -o user= -p "$(property MainPID)" | grep tidegate >/dev/null
    ok "the package installs, and the server runs as a user of its own"
}

units_are_sound() {
    guest systemd-analyze verify tidegate.service tidegate.socket tidegate-tuning.service
    guest systemd-analyze security --no-pager --threshold=20 tidegate.service >"$work/security.log" ||
        stop "systemd-analyze security: $(tail -n 1 "$work/security.log")"
    ok "the units verify; $(tail -n 1 "$work/security.log" | sed 's/[^[:print:]]//g; s/^ *//')"
}

# Without a network card only the kernel's settings can be given; the script is told one that has no interrupts.
host_is_tuned() {
    guest tee /etc/default/tidegate-tuning >/dev/null <<<'TUNE_ARGUMENTS="--interface lo"'
    [ "$(guest cat /proc/sys/net/core/somaxconn)" != 65536 ]
    guest systemctl start tidegate-tuning
    [ "$(guest cat /proc/sys/net/core/somaxconn)" = 65536 ] || stop "the kernel's settings are not those of the doctor"
    guest journalctl --unit tidegate-tuning --output cat | grep 'interface lo, shards on cores' >/dev/null ||
        stop "tune.sh did not get its arguments"
    guest rm /etc/default/tidegate-tuning
    ok "tidegate-tuning gives the kernel what the doctor recommends, and runs tune.sh with its arguments"
}

publications_arrive() {
    write_config <tests/systemd/server.toml
    # A watchdog of 30 s is too long to wait for; one of 3 s would come before the server says who does not answer.
    drop_in tidegate.service <<<$'[Service]\nWatchdogSec=6s\nTimeoutAbortSec=2s'
    guest systemctl restart tidegate
    receives news:first '"hello"'
    guest redis-cli -s /run/tidegate/ingest.sock PING | grep PONG >/dev/null
    background status tidegate tail news:status
    until_true "the client in the status text" has StatusText "clients: 1"
    guest systemctl stop test-status
    [ "$(guest stat --format %U /var/log/tidegate/audit.log)" = tidegate ]
    ok "publications over TCP and the Unix socket arrive; the status text counts clients"
}

configuration_is_reloaded() {
    local process
    process=$(property MainPID)
    sed 's/^allow_anonymous = true/allow_anonymus = maybe/' tests/systemd/server.toml | write_config
    ! guest systemctl reload tidegate 2>/dev/null || stop "a configuration with mistakes was reloaded"
    is MainPID "$process" && is ActiveState active
    { cat tests/systemd/server.toml && printf '\n[[channel.namespaces]]\nname = "late"\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n'; } | write_config
    guest systemctl reload tidegate
    receives late:first '"hello"'
    is MainPID "$process" || stop "a reload started the server again"
    ok "systemctl reload takes a new namespace in, and refuses a file with mistakes"
}

killed_server_returns() {
    local process
    process=$(property MainPID)
    guest kill -9 "$process"
    until_true "the server's return after kill -9" restarted "$process"
    receives news:again '"again"'
    ok "after kill -9 it is started again"
}

stopped_server_is_killed() {
    local process
    process=$(property MainPID)
    mark
    guest kill -STOP "$process"
    until_true "the watchdog" restarted "$process"
    journal_has "Watchdog timeout" || stop "the journal does not say why"
    ok "a process that stands still is killed by the watchdog and started again"
}

stuck_shard_is_a_failure() {
    local process
    process=$(property MainPID)
    mark
    python3 tests/systemd/faults.py stick "$(host_process "$process")" shard-0 60 &
    until_true "the watchdog" restarted "$process"
    wait $! || true
    journal_has "Watchdog timeout" && journal_has "not answering" || stop "the journal does not say why"
    ok "one shard that stands still is a failure of the server"
}

panic_ends_the_server() {
    local process
    process=$(property MainPID)
    mark
    python3 tests/systemd/faults.py panic "$(host_process "$process")" shard-0
    until_true "the server's return after a panic" restarted "$process"
    journal_has "panicked at" || stop "the journal does not say why"
    receives news:panic '"again"'
    ok "a shard that panics ends the server, which is started again"
}

# A process of the guest, as this machine numbers it: found by its place in the guest's namespace.
host_process() {
    local status
    for status in /proc/[0-9]*/status; do
        awk -v wanted="$1" '$1 == "NSpid:" && NF == 3 && $3 == wanted { found = 1 } END { exit !found }' "$status" 2>/dev/null || continue
        status=${status%/status}
        [ "$(readlink "$status/ns/pid")" = "$(readlink "/proc/$guest/ns/pid")" ] && echo "${status#/proc/}" && return
    done
    stop "process $1 of the guest is not found"
}

stop_drains() {
    background drained tidegate tail news:drain
    until_true "the client" has StatusText "clients: 1"
    guest systemctl stop tidegate
    is Result success && is ActiveState inactive
    until_true "what the client was told" guest grep 3001 /root/drained
    guest systemctl stop test-drained
    guest systemctl start tidegate
    guest tidegate drain --config $config >"$work/drain" 2>&1
    grep -q 'has ended after' "$work/drain"
    until_true "the end of a drained server" is ActiveState inactive
    is Result success || stop "a drain is taken for a failure"
    sleep 2
    is ActiveState inactive || stop "a drained server was started again"
    ok "systemctl stop and tidegate drain let clients go, and the server stays stopped"
}

sockets_are_passed() {
    local cores=0
    # A socket for each shard, where there is more than one core.
    if [ "$(guest nproc)" -gt 1 ]; then
        cores=0-1
        drop_in tidegate.socket <<<$'[Socket]\nReusePort=true\nListenStream=127.0.0.1:8000'
    fi
    drop_in tidegate.service <<<"[Service]
Sockets=tidegate-operators.socket tidegate-producers.socket
Environment=TIDEGATE_SHARDS_CORES=$cores"
    guest tee /etc/systemd/system/tidegate-operators.socket >/dev/null <<<$'[Socket]\nListenStream=127.0.0.1:9000\nFileDescriptorName=admin\nService=tidegate.service'
    guest tee /etc/systemd/system/tidegate-producers.socket >/dev/null <<<$'[Socket]\nListenStream=/run/tidegate/ingest.sock\nFileDescriptorName=ingest\nSocketMode=0660\nSocketUser=tidegate\nSocketGroup=tidegate\nService=tidegate.service'
    guest systemctl daemon-reload
    guest systemctl start tidegate.socket tidegate-operators.socket tidegate-producers.socket
    is ActiveState inactive
    [ "$(guest timeout 30 redis-cli -s /run/tidegate/ingest.sock PING)" = PONG ] || stop "a producer does not start the server"
    is ActiveState active
    receives news:socket '"passed"'
    guest tee /root/come >/dev/null <<'SCRIPT'
refused=0
for number in $(seq 300); do
    (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null || refused=$((refused + 1))
    sleep 0.01
done
echo $refused
SCRIPT
    background refused bash /root/come
    guest systemctl restart tidegate
    until_true "the last of the clients" guest grep . /root/refused
    local refused
    refused=$(guest cat /root/refused)
    [ "$refused" = 0 ] || stop "$refused clients were refused while the server was started again"
    guest systemctl stop tidegate.socket tidegate-operators.socket tidegate-producers.socket tidegate.service
    drop_in tidegate.socket <<<$'[Socket]\nReusePort=true\nListenStream=127.0.0.1:8000'
    drop_in tidegate.service <<<$'[Service]\nEnvironment=TIDEGATE_SHARDS_CORES=0'
    mark
    guest systemctl start tidegate.socket
    ! guest systemctl start tidegate.service 2>/dev/null || stop "two sockets were taken by one shard"
    journal_has "2 sockets named client were passed to 1 shards"
    guest systemctl stop tidegate.service tidegate.socket
    remove_drop_in tidegate.socket
    ok "passed sockets start the server, and no client is refused while it is started again"
}

# refuses_with SETTING MESSAGE: the server does not start under a setting of its unit, and says why.
refuses_with() {
    drop_in tidegate.service <<<$'[Service]\nRestart=no\n'"$1"
    mark
    ! guest systemctl start tidegate.service 2>/dev/null || stop "the server started in spite of $1"
    journal_has "$2" || stop "the journal does not say: $2"
}

limits_are_told() {
    refuses_with 'SystemCallFilter=~io_uring_setup' 'a seccomp filter is at work'
    if [ "$(uname -r | awk -F. '{ print ($1 * 100 + $2 >= 614) }')" = 1 ]; then
        refuses_with 'LimitMEMLOCK=4K' 'LimitMEMLOCK=infinity'
    fi
    refuses_with 'CPUAffinity=0
Environment=TIDEGATE_SHARDS_CORES=63' 'this process may run on the cores'
    is ExecMainStatus 2
    drop_in tidegate.service <<<$'[Service]\nLimitNOFILE=400'
    mark
    guest systemctl start tidegate.service
    journal_has "Raise LimitNOFILE= in the unit"
    background crowd bash -c 'for number in {1..800}; do exec {descriptor}<>/dev/tcp/127.0.0.1/8000 || break; done; sleep 60'
    until_true "the warning of descriptors that have run out" journal_has "accepting pauses"
    guest systemctl stop test-crowd
    receives news:descriptors '"left"'
    is NRestarts 0
    remove_drop_in tidegate.service
    guest systemctl restart tidegate.service
    ok "what the unit does not allow is told with what to type; descriptors that run out end nobody"
}

package_upgrades_and_goes() {
    local process
    process=$(property MainPID)
    guest dpkg --install /root/tidegate.deb >"$work/dpkg.log" 2>&1
    until_true "the new server" restarted "$process"
    guest grep -q '^name = "news"' $config || stop "an upgrade has changed the configuration"
    guest dpkg --remove tidegate >"$work/dpkg.log" 2>&1
    is ActiveState inactive
    guest test -e $config
    guest dpkg --purge tidegate >"$work/dpkg.log" 2>&1
    ! guest getent passwd tidegate >/dev/null || stop "a purge leaves the user"
    local left
    left=$(guest find / -xdev -path /root -prune -o -path /proc -prune -o -path /sys -prune -o \
        -name '*tidegate*' -not -path '/etc/systemd/system/tidegate-*' -print)
    [ -z "$left" ] || stop "a purge leaves $left"
    ok "an upgrade starts the new server, a removal keeps the configuration, a purge leaves nothing"
}

check_host
mkdir -p "$work"
build_base
package_is_clean
boot
package_installs
units_are_sound
host_is_tuned
publications_arrive
killed_server_returns
stopped_server_is_killed
stuck_shard_is_a_failure
panic_ends_the_server
configuration_is_reloaded
stop_drains
sockets_are_passed
limits_are_told
package_upgrades_and_goes
echo "test result: ok. $passed passed; 0 failed; 0 ignored"

#!/usr/bin/env bash
# What a connection and a message cost, beside the kernel's own cost, in fresh server processes.
# Each run's report goes to target/reports/ as JSON and as a page; `goals` puts those of all goals
# together, in loadtest/reports/NAME/. `loadtest/measure.sh goals|memory|fanout|heartbeat|storm|compression|gate`
set -euo pipefail
cd "$(dirname "$0")/.."

cores=$(nproc)
if ((cores < 2)); then
    echo "two cores are needed, one for the server's shard and one for the load; this machine has $cores" >&2
    exit 1
fi
ulimit -n "$(ulimit -Hn)"

cargo build --release --package tidegate --package tidegate-loadtest
reports=target/reports
tester=target/release/tidegate-loadtest
mkdir -p "$reports"
secret="a secret that everybody knows: for load tests only"

# run NAME SCENARIO ARGUMENT... : one run, with its reports; a failed one does not stop the others.
status=0
run() {
    local name=$1 scenario=$2
    shift 2
    "$tester" "$scenario" --json "$reports/$name.json" --html "$reports/$name.html" "$@" || status=1
    echo
}

# to_server FILE : arguments for a server of this configuration.
to_server() {
    server=(--serve "target/release/tidegate serve --config $1" --url ws://127.0.0.1:18000/connection/websocket)
}

# measure NAME SCENARIO ARGUMENT... : one run beside the floor.
measure() {
    local name=$1 scenario=$2
    shift 2
    to_server loadtest/server.toml
    run "$name" "$scenario" --floor "${server[@]}" "$@"
}

# A server needs a descriptor per client and a few of its own.
descriptors=$(ulimit -n)
clients_of() { echo $(($1 < descriptors - 512 ? $1 : descriptors - 512)); }
ports=(--ingest 127.0.0.1:17400 --metrics 127.0.0.1:19000)

# Clients that are users, each with a token of its own; `personal` false: without a channel of their own.
measure_users() {
    local name=$1 title=$2 clients=$3 personal=$4
    TIDEGATE_CLIENT_PERSONAL_CHANNEL=$personal \
        measure "$name" idle --title "$title" --connections "$clients" --hmac-secret "$secret"
}

# The server pings as often as its configuration allows.
measure_heartbeat() {
    TIDEGATE_CLIENT_PING_INTERVAL=1s TIDEGATE_CLIENT_PONG_TIMEOUT=900ms \
        measure heartbeat heartbeat --title "heartbeats" --connections "$1" --seconds "${SECONDS_MEASURED:-20}"
}

# Publications of every kind, to a server that compresses nothing, each by itself, with those before it; and to one of
# another make, which compresses for each connection, and needs some 300 KiB for each.
measure_compression() {
    local clients=$1 peer_clients=$2 payload mode goal
    for mode in off single shared; do
        sed "s/^name = \"demo\"$/&\ncompression = \"$mode\"/" loadtest/server.toml >"$reports/compression-$mode.toml"
        to_server "$reports/compression-$mode.toml"
        run "compression-idle-$mode" idle --compression --title "$mode, idle" "${server[@]}" --connections "$clients"
    done
    for payload in ${PAYLOADS:-ticks chat match json512 json1024}; do
        local common=(--compression --payload "$payload" --rate "${RATE:-5}" --seconds "${SECONDS_MEASURED:-10}")
        for mode in off single shared; do
            to_server "$reports/compression-$mode.toml"
            goal=()
            if [ "$payload-$mode" = ticks-shared ]; then goal=(--wire-percent-max 27); fi
            run "compression-$payload-$mode" broadcast --title "$payload, $mode" "${server[@]}" "${ports[@]}" \
                --connections "$clients" "${common[@]}" "${goal[@]}"
            compared+=("$reports/compression-$payload-$mode.json")
        done
        if [ -d tests/node_modules/ws ]; then
            run "compression-$payload-peer" broadcast --title "$payload, ws on Node.js, for each of $peer_clients" \
                --serve "taskset --cpu-list 0 node tests/javascript/push_peer.mjs 0 deflate 18001" \
                --url ws://127.0.0.1:18001/ --connect-text "hello {client}" --subscribe-text "subscribe {channel}" \
                --ready-text subscribed --publish-text "publish {channel} {payload}" \
                --connections "$peer_clients" "${common[@]}"
            compared+=("$reports/compression-$payload-peer.json")
        else
            echo "tests/node_modules has no ws to compare with: make test-tools installs it" >&2
        fi
        limits+=(--no-more-than "$reports/compression-$payload-off.json,$reports/compression-$payload-shared.json")
    done
    limits+=(--no-more-than "$reports/compression-idle-off.json,$reports/compression-idle-shared.json")
}

case ${1:-} in
goals)
    read -ra sizes <<<"${SIZES:-1000 10000 18000}"
    clients=${sizes[1]}
    idle=() broadcast=()
    for size in "${sizes[@]}"; do
        measure "idle-$size" idle --title "$size idle connections" --connections "$size"
        idle+=("$reports/idle-$size.json")
    done
    measure_users idle-users "$clients idle users" "$clients" false
    measure_users idle-users-personal "$clients idle users with a personal channel" "$clients" true
    for size in "${sizes[@]}"; do
        # Latency needs many broadcasts, at 10 per second.
        rate=5 seconds=${SECONDS_MEASURED:-10}
        if ((size == clients)); then rate=10 seconds=${LATENCY_SECONDS:-35}; fi
        measure "broadcast-$size" broadcast "${ports[@]}" --title "one message at a time to $size" \
            --connections "$size" --rate "$rate" --seconds "$seconds"
        broadcast+=("$reports/broadcast-$size.json")
    done
    measure broadcast-burst broadcast "${ports[@]}" --title "bursts of 16 messages to $clients" \
        --connections "$clients" --burst 16 --rate 5 --seconds "${SECONDS_MEASURED:-10}"
    measure_heartbeat "$clients"
    judged=()
    for name in "idle-$clients" idle-users idle-users-personal "broadcast-$clients" broadcast-burst heartbeat; do
        judged+=("$reports/$name.json")
    done
    list() { local IFS=,; echo "$*"; }
    reports=loadtest/reports/${NAME:-$(date +%F)}
    mkdir -p "$reports"
    "$tester" summary "${judged[@]}" --growth "$(list "${idle[@]}")" --growth "$(list "${broadcast[@]}")" \
        --subject "$(target/release/tidegate --version), commit $(git describe --always --dirty)" \
        --json "$reports/goals.json" --html "$reports/goals.html" || status=1
    ;;
memory)
    clients=$(clients_of "${CONNECTIONS:-15000}")
    measure idle-anonymous idle --connections "$clients"
    measure_users idle-users "idle users with a personal channel" "$clients" true
    ;;
fanout)
    clients=$(clients_of "${CONNECTIONS:-10000}")
    for burst in 1 8 16; do
        measure "broadcast-burst-$burst" broadcast "${ports[@]}" --connections "$clients" --burst "$burst" \
            --rate "${RATE:-5}" --seconds "${SECONDS_MEASURED:-10}"
    done
    ;;
heartbeat)
    measure_heartbeat "$(clients_of "${CONNECTIONS:-10000}")"
    ;;
storm)
    measure storm storm --recover --ingest 127.0.0.1:17400 --title "cut at once, while publications go on" \
        --connections "$(clients_of "${CONNECTIONS:-10000}")" --channel "kept:{}" --channels 100 --rate "${RATE:-300}"
    ;;
compression)
    clients=$(clients_of "${CONNECTIONS:-10000}")
    compared=() limits=()
    measure_compression "$clients" "${PEER_CONNECTIONS:-$((clients < 2000 ? clients : 2000))}"
    "$tester" summary "${compared[@]}" "${limits[@]}" \
        --subject "$(target/release/tidegate --version), commit $(git describe --always --dirty)" \
        --json "$reports/compression.json" --html "$reports/compression.html" || status=1
    ;;
gate)
    clients=$(clients_of "${CONNECTIONS:-5000}")
    # Other connections on the machine spoil the kernel's account; what the server itself costs fails every time.
    for attempt in 1 2 3; do
        status=0
        measure gate-anonymous idle --connections "$clients" --seconds 1 --gate
        ((status)) || break
        echo "attempt $attempt of 3 failed" >&2
    done
    ;;
*)
    echo "usage: loadtest/measure.sh goals|memory|fanout|heartbeat|storm|compression|gate" >&2
    exit 2
    ;;
esac
echo "reports: $reports/"
exit $status

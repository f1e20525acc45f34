#!/usr/bin/env bash
# What a connection and a message cost, beside the kernel's own cost, in fresh server processes.
# Reports go to target/reports/ as JSON and as pages. `loadtest/measure.sh memory|fanout|heartbeat|gate`
set -euo pipefail
cd "$(dirname "$0")/.."

cores=$(nproc)
if ((cores < 2)); then
    echo "two cores are needed, one for the server's shard and one for the load; this machine has $cores" >&2
    exit 1
fi
ulimit -n "$(ulimit -Hn)"

cargo build --release --workspace
reports=target/reports
mkdir -p "$reports"
secret="a secret that everybody knows: for load tests only"

# measure NAME SCENARIO ARGUMENT... : one run, with its reports; a failed one does not stop the others.
status=0
measure() {
    local name=$1 scenario=$2
    shift 2
    target/release/tidegate-loadtest "$scenario" --floor \
        --serve "target/release/tidegate serve --config loadtest/server.toml" \
        --url ws://127.0.0.1:18000/connection/websocket \
        --json "$reports/$name.json" --html "$reports/$name.html" "$@" || status=1
    echo
}

# A server needs a descriptor per client and a few of its own.
descriptors=$(ulimit -n)
clients_of() { echo $(($1 < descriptors - 512 ? $1 : descriptors - 512)); }
ports=(--ingest 127.0.0.1:17400 --metrics 127.0.0.1:19000)

case ${1:-} in
memory)
    clients=$(clients_of "${CONNECTIONS:-15000}")
    measure idle-anonymous idle --connections "$clients"
    measure idle-users idle --connections "$clients" --hmac-secret "$secret"
    ;;
fanout)
    clients=$(clients_of "${CONNECTIONS:-10000}")
    for burst in 1 8 16; do
        measure "broadcast-burst-$burst" broadcast "${ports[@]}" --connections "$clients" --burst "$burst" \
            --rate "${RATE:-5}" --seconds "${SECONDS_MEASURED:-10}"
    done
    ;;
heartbeat)
    clients=$(clients_of "${CONNECTIONS:-10000}")
    # As often as the configuration allows.
    export TIDEGATE_CLIENT_PING_INTERVAL=1s TIDEGATE_CLIENT_PONG_TIMEOUT=900ms
    measure heartbeat heartbeat --connections "$clients" --seconds "${SECONDS_MEASURED:-20}"
    ;;
gate)
    clients=$(clients_of "${CONNECTIONS:-5000}")
    measure gate-anonymous idle --connections "$clients" --gate
    ;;
*)
    echo "usage: loadtest/measure.sh memory|fanout|heartbeat|gate" >&2
    exit 2
    ;;
esac
echo "reports: $reports/"
exit $status

#!/usr/bin/env bash
# Runs the suites that registries publish along with their SDK against the server; their sources are fetched into target/.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.7.0
checksum=11252b45c3f6b6104cfb07fb0fcfc9d2d62832d2af14715dd16fdc5e9c6e5964
program=${TEST_SERVER_PROGRAM:-target/release/tidegate}
folder=$PWD/target/suites
sources=$folder/centrifuge_python-$version

[ -x "$program" ] || { echo "$program is not here: run 'cargo build --release' first" >&2; exit 1; }
tests/install-tools.sh
mkdir -p "$folder"
if [ ! -d "$sources" ]; then
    tests/.venv/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$folder" "centrifuge-python==$version"
    sha256sum --quiet --check <<<"$checksum  $sources.tar.gz"
    tar --extract --gzip --file "$sources.tar.gz" --directory "$folder"
fi

"$program" serve --config tests/suites/python.toml 2>"$folder/server.log" &
server=$!
trap 'kill "$server" 2>/dev/null' EXIT
for _ in $(seq 100); do
    grep --quiet ready "$folder/server.log" && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/server.log" >&2; exit 1; }
    sleep 0.1
done
echo "centrifuge-python $version: its log is $folder/python.log"
cd "$sources"
# Many of its tests wait for ever for what does not come.
status=0
timeout 600 "$OLDPWD/tests/.venv/bin/python" -m unittest discover --start-directory tests --top-level-directory . \
    >"$folder/python.log" 2>&1 || status=$?
if [ "$status" -eq 0 ]; then
    grep --extended-regexp '^(Ran [0-9]+ tests|OK)' "$folder/python.log"
else
    grep --extended-regexp '^(ERROR|FAIL|FAILED)' "$folder/python.log" || true
    tail --lines 60 "$folder/python.log"
fi
exit "$status"

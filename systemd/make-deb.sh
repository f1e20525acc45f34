#!/usr/bin/env bash
# `make deb`: the Debian package, in target/deb/. PROFILE=dev packs the quick build that tests use.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/target/tools/bin"

profile=${PROFILE:-release}
case $profile in
release) folder=release options=() ;;
dev) folder=debug options=(--fast) ;;
*)
    echo "PROFILE=$profile: release or dev is expected" >&2
    exit 2
    ;;
esac

command -v cargo-deb >/dev/null || {
    echo "cargo-deb is missing: run 'make test-tools'" >&2
    exit 1
}
cargo build --profile "$profile" --package tidegate --bin tidegate
mkdir -p target/deb
rm -f target/deb/*.deb
strip -o target/deb/tidegate "target/$folder/tidegate"
target/deb/tidegate config-reference >target/deb/tidegate.toml
cargo-deb --quiet --no-build --no-strip "${options[@]}" --package tidegate --output target/deb/ >/dev/null
ls target/deb/*.deb

#!/usr/bin/env bash
# `make deb`: the Debian package, in target/deb/. PROFILE=dev packs the quick build that tests use.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/target/tools/bin"

profile=${PROFILE:-release}
case $profile in
release) folder=release ;;
dev) folder=debug ;;
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
"target/$folder/tidegate" config-reference >target/deb/tidegate.toml
rm -f target/deb/*.deb
cargo-deb --quiet --no-build --profile "$profile" --package tidegate --output target/deb/ >/dev/null
ls target/deb/*.deb

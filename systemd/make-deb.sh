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

# The manual page: what the program says of itself, word for word.
manual() {
    local command
    printf '.TH TIDEGATE 8\n.SH NAME\ntidegate \\- push server for one Linux host\n.SH SYNOPSIS\n'
    help_of
    for command in $(target/deb/tidegate --help | awk '/^Commands:/ { listed = 1; next } /^$/ { listed = 0 } listed && /^  [a-z]/ { print $1 }'); do
        [ "$command" = help ] && continue
        printf '.SH %s\n' "$(tr '[:lower:]' '[:upper:]' <<<"$command")"
        help_of "$command"
    done
}

help_of() {
    printf '.nf\n'
    # No line is one of the page's own commands.
    target/deb/tidegate "$@" --help | sed 's/\\/\\e/g; s/-/\\-/g; s/^[.'"'"']/\\\&&/'
    printf '.fi\n'
}

command -v cargo-deb >/dev/null || {
    echo "cargo-deb is missing: run 'make test-tools'" >&2
    exit 1
}
cargo build --profile "$profile" --package tidegate --bin tidegate
mkdir -p target/deb
rm -f target/deb/*.deb
strip -o target/deb/tidegate "target/$folder/tidegate"
target/deb/tidegate config-reference >target/deb/tidegate.toml
manual >target/deb/tidegate.8
cargo-deb --quiet --no-build --no-strip "${options[@]}" --package tidegate --output target/deb/ >/dev/null
ls target/deb/*.deb

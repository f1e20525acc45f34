#!/usr/bin/env bash
# Checks the dependencies against deny.toml. The database of known vulnerabilities lives on the network:
# where it cannot be reached, that one check is left out, and said to be.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/target/tools/bin"

# Its warnings (two versions of one crate) are for whoever asks: `cargo deny check bans`.
cargo-deny --log-level error check --hide-inclusion-graph licenses bans sources

if cargo-deny fetch db >/dev/null 2>&1; then
    cargo-deny --log-level error check --hide-inclusion-graph --disable-fetch advisories
else
    echo "NOT CHECKED: known vulnerabilities, withdrawn versions, crates that nobody looks after: the database of advisories cannot be reached from this machine"
fi

#!/usr/bin/env bash
# Runs the Autobahn test suite against an echo server that is made of the server's own codec (tests/conformance).
# "all": groups 1 to 7, 9, 10, 12 and 13, in some 15 minutes. "short": what takes under a minute; where the suite cannot be
# installed, that is said and is no failure.
set -euo pipefail
cd "$(dirname "$0")/../.."

selection=${1:-all}
case $selection in
    all | short) ;;
    *) echo "say which cases: tests/conformance/run.sh all, or short" >&2; exit 2 ;;
esac

status=0
tests/conformance/install.sh || status=$?
if [ "$status" -eq 3 ] && [ "$selection" = short ]; then
    echo "skipped: the Autobahn test suite cannot run here"
    exit 0
fi
[ "$status" -eq 0 ] || exit "$status"

AUTOBAHN_PROGRAM=$PWD/target/conformance/suite/bin/wstest AUTOBAHN_CASES=$selection \
    cargo test --test conformance -- --ignored --nocapture

#!/usr/bin/env bash
# Installs the Autobahn test suite into target/conformance, if it is not there. Its last release runs on Python 2.7 only.
# Ends with 3, and says why, where there is no such interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=target/conformance
suite=$folder/suite

# The interpreter: the one that is named, the system's, or pyenv's, whose shims are there for versions that are not.
find_python27() {
    local candidate
    for candidate in "${PYTHON27:-}" python2.7 "$(pyenv prefix 2.7.18 2>/dev/null)/bin/python"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "the Autobahn test suite needs Python 2.7: run 'pyenv install 2.7.18', or name an interpreter in PYTHON27" >&2
    return 3
}

[ ! -e "$folder/installed" ] || exit 0
python27=$(find_python27)

rm -rf "$folder"
mkdir -p "$folder"
# The last virtualenv that makes environments for 2.7.
python3 -m venv "$folder/maker"
"$folder/maker/bin/pip" install --quiet --disable-pip-version-check 'virtualenv==20.21.1' </dev/null
"$folder/maker/bin/virtualenv" --quiet --python "$python27" "$suite"
install() { "$suite/bin/pip" --disable-pip-version-check --quiet install "$@" </dev/null; }
# Pip says in each of its lines that 2.7 is old.
export PYTHONWARNINGS=ignore
install 'setuptools==44.0.0' 'incremental==16.10.1' 'pyOpenSSL==19.1.0' 'cryptography==3.3.2'
install --no-build-isolation 'Twisted==19.10.0'
install 'autobahntestsuite==25.10.1'
touch "$folder/installed"

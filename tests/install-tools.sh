#!/usr/bin/env bash
# Installs what the tests need and what is missing of it, by package name; never asks.
# As another user than root it prints the command that installs Debian's packages, and stops.
set -euo pipefail
cd "$(dirname "$0")/.."

node_major_min=20

has() { command -v "$1" >/dev/null 2>&1; }

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

install_debian_packages() {
    local packages=()
    has redis-cli && has redis-benchmark || packages+=(redis-tools)
    has openssl || packages+=(openssl)
    has curl || packages+=(curl)
    has chromium || packages+=(chromium)
    has node || packages+=(nodejs)
    has npm || packages+=(npm)
    has python3 || packages+=(python3)
    has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    has zstd || packages+=(zstd)
    has valgrind || packages+=(valgrind)
    has debootstrap || packages+=(debootstrap)
    has systemd-nspawn || packages+=(systemd-container)
    has lintian || packages+=(lintian)
    has cc || packages+=(gcc libc6-dev)
    [ ${#packages[@]} -gt 0 ] || return 0

    echo "missing Debian packages: ${packages[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        stop "install them, then run this again:" \
            "  sudo apt-get update && sudo apt-get install --yes --no-install-recommends ${packages[*]}"
    fi
    has apt-get || stop "apt-get is not here: install ${packages[*]} with this system's package manager, then run this again"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2
    apt-get install --yes --quiet=2 --no-install-recommends "${packages[@]}" </dev/null
}

check_node_version() {
    local major
    major=$(node --print 'process.versions.node.split(".")[0]')
    [ "$major" -ge "$node_major_min" ] ||
        stop "the client libraries under test need Node.js $node_major_min or later; this is $(node --version)." \
            "Debian 13 has it (apt-get install nodejs npm); on an older release install it from elsewhere and put it on PATH."
}

install_npm_packages() {
    cmp --silent tests/package-lock.json tests/node_modules/.installed-lock && return 0
    npm ci --prefix tests --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null
    cp tests/package-lock.json tests/node_modules/.installed-lock
}

install_python_packages() {
    cmp --silent tests/requirements.txt tests/.venv/installed-requirements.txt && return 0
    python3 -m venv --clear tests/.venv
    tests/.venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt </dev/null
    cp tests/requirements.txt tests/.venv/installed-requirements.txt
}

check_rust_toolchain() {
    has cargo || stop "a Rust toolchain is missing: install rustup, then run 'rustup default stable'"
    cargo fmt --version >/dev/null 2>&1 || stop "rustfmt is missing: run 'rustup component add rustfmt'"
    cargo clippy --version >/dev/null 2>&1 || stop "clippy is missing: run 'rustup component add clippy'"
}

install_cargo_tools() {
    local tool
    for tool in cargo-deny cargo-deb; do
        has $tool || [ -x target/tools/bin/$tool ] ||
            cargo install --quiet --locked --root target/tools --target-dir target/tools/build $tool
    done
    rm -rf target/tools/build
}

# Of Debian's package only the one program is wanted, not the server that would be started with it.
install_promtool() {
    has promtool || [ -x target/tools/bin/promtool ] && return 0
    local folder
    has apt-get || stop "promtool is missing: put it on PATH, from Prometheus's own releases, then run this again"
    folder=$(mktemp --directory)
    # As root, apt fetches as a user of its own.
    chmod 755 "$folder"
    (cd "$folder" && apt-get download --quiet=2 prometheus && dpkg-deb --extract prometheus_*.deb .) ||
        stop "the package prometheus cannot be fetched: run 'sudo apt-get update', then this again"
    install -D "$folder/usr/bin/promtool" target/tools/bin/promtool
    rm -rf "$folder"
}

check_rust_toolchain
install_debian_packages
check_node_version
install_npm_packages
install_python_packages
install_cargo_tools
install_promtool

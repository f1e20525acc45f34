# The loop a developer lives in. `make help` says what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 60

# Benchmarks by time, a file of benches/ each.
BENCHES := websocket protocol resp channel mesh slab wheel fanout shard compression

# Every target is a command, and has its line in `make help`.
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*\#\# .*/\1/p' Makefile)

help: ## Lists these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Builds in release mode and runs the server with a demonstration producer; the console's address is printed.
	@command -v cargo >/dev/null || { echo "make run needs a Rust toolchain (cargo 1.90 or later): install rustup, then run 'rustup default stable'"; exit 1; }
	@cargo build --release
	@exec target/release/tidegate serve --demo

deb: ## The Debian package, in target/deb/: server, units, tuning, a commented configuration.
	@systemd/make-deb.sh

test: ## Installs what the tests need, then runs every check and every test.
	@tests/run-all.sh

test-tools: ## Installs what the tests need: Debian, npm and PyPI packages, cargo-deny, cargo-deb.
	@tests/install-tools.sh

check: ## Formatting and lints.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## Licences, sources and versions of the dependencies; known vulnerabilities where their database can be reached.
	@tests/check-dependencies.sh

test-unit: ## Unit tests and documentation examples, with debug assertions.
	cargo test --workspace --lib --bins
	cargo test --doc

test-black-box: ## Real clients against the release build of the server; `make test-black-box ONLY=websocket` runs one file.
	cargo build --release --package tidegate --package tidegate-loadtest
	TEST_SERVER_PROGRAM=$(CURDIR)/target/release/tidegate cargo test --no-fail-fast --test '$(or $(ONLY),*)'

conformance: ## The Autobahn test suite against an echo server of our codec, in some 15 minutes; ONLY=short: under a minute. Needs Python 2.7.
	@tests/conformance/run.sh $(or $(ONLY),all)

test-systemd: ## The Debian package under a real systemd, in a guest that systemd-nspawn boots; needs root. PROFILE=dev packs the quick build.
	@tests/systemd/run.sh

test-kernel-tls: ## The tests of TLS in a guest whose kernel seals and opens records itself, and bytes per idle connection with and without.
	@tests/kernel-tls/run.sh

sdk-suites: ## The SDKs' own test suites, where registries publish them, against the release build; needs port 8000.
	cargo build --release --package tidegate
	@tests/suites/run.sh

abuse: ## 5,000 slow handshakes beside 5,000 healthy clients, the same and storms of full ones over TLS, and 10,000 clients that vanish: needs root, 12,000 descriptors.
	cargo build --release --package tidegate
	TEST_SERVER_PROGRAM=$(CURDIR)/target/release/tidegate ABUSE_SLOW=5000 ABUSE_HEALTHY=5000 ABUSE_VANISHING=10000 \
		cargo test --test abuse -- --nocapture --test-threads 1

simulate: ## Replays one seed of the simulated kernel: make simulate SEED=n.
	@test -n "$(SEED)" || { echo "say which seed: make simulate SEED=n"; exit 1; }
	SEED=$(SEED) cargo test --test simulation -- --nocapture

fuzz: ## Runs each fuzz target for FUZZ_SECONDS (60), under AddressSanitizer; FUZZ_ONLY="frame token" for some.
	@tests/fuzz.sh $(FUZZ_SECONDS)

sanitize: ## What has unsafe code (src/uring), and black-box traffic, under AddressSanitizer; SANITIZE_ONLY="websocket" for one file of tests.
	@tests/sanitize.sh

measure: ## All goals beside the floor, in some ten minutes: loadtest/reports/NAME/; SIZES="1000 10000 18000".
	@loadtest/measure.sh goals

memory: ## Bytes per idle connection, user and kernel, beside a bare accepted socket's; CONNECTIONS=15000.
	@loadtest/measure.sh memory

bench-fanout: ## CPU per delivered message, beside a plain send() loop's, in bursts of 1, 8 and 16; CONNECTIONS=10000 RATE=5.
	@loadtest/measure.sh fanout

bench-heartbeat: ## CPU per heartbeat (ping out, pong in), beside a bare send() and recv(); CONNECTIONS=10000.
	@loadtest/measure.sh heartbeat

bench-storm: ## All clients of 100 channels are cut at once and recover while publications go on; CONNECTIONS=10000.
	@loadtest/measure.sh storm

bench-compression: ## Bytes and CPU per message: off, single, shared, and compressed for each connection; CONNECTIONS=10000.
	@loadtest/measure.sh compression

gate-memory: ## Fails if an idle connection costs more bytes than its budget; CONNECTIONS=5000.
	@loadtest/measure.sh gate

million: ## A million clients in a virtual machine of its own: bytes per connection, one broadcast to all; N=20000 for a short run.
	@loadtest/million/run.sh

bench: ## Benchmarks by time; `make bench ONLY=wheel` runs one file.
	cargo bench $(addprefix --bench ,$(or $(ONLY),$(BENCHES)))

bench-instructions: ## Fails where instructions per operation have grown; UPDATE=1 writes their baseline anew, PROFILE=shard/arrival lists functions.
	cargo run --quiet --release --package tidegate-instructions -- $(if $(UPDATE),--update) $(if $(PROFILE),--profile $(PROFILE))

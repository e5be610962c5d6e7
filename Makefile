# Lighter's front door. `make demo` shows it running, `make test` runs every test; both install what they need.
# Honours CARGO_TARGET_DIR. Binaries for tests: <target>/bin (development profile); for use: <target>/release-bin.
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEPS := packaging/deps.sh
STATIC := x86_64-unknown-linux-gnu

.DEFAULT_GOAL := help
.PHONY: help deps build release install uninstall test test-tier demo bench bench-control sim lint fmt shell clean-vm

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## installs the Debian packages that are missing (needs root)
	@$(DEPS) build test vm demo

build: ## everything for tests; the three binaries in <target>/bin
	@$(DEPS) build
# The whole workspace at once: parts of it would build the same dependencies again with other features.
	cargo build --workspace --all-targets
	@$(MAKE) --no-print-directory shim
	@mkdir -p $(TARGET)/bin
	@install -C -m 755 $(TARGET)/debug/lighter $(TARGET)/debug/lighter-oci $(TARGET)/static/$(STATIC)/release/lighter-shim $(TARGET)/bin/

# `make bench` adds its programs: in one command no dependency is compiled twice with other features.
RELEASED := -p lighter-cli -p lighter-oci
release: ## the three binaries for use, optimised, in <target>/release-bin
	@$(DEPS) build
	cargo build --release $(RELEASED)
	@$(MAKE) --no-print-directory shim
	@mkdir -p $(TARGET)/release-bin
	@install -C -m 755 $(TARGET)/release/lighter $(TARGET)/release/lighter-oci $(TARGET)/static/$(STATIC)/release/lighter-shim $(TARGET)/release-bin/

# Resident once per task: static, optimised, in a target directory of its own because its flags differ.
.PHONY: shim
shim:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build -p lighter-shim --release --target $(STATIC) --target-dir $(TARGET)/static

install: release ## installs binaries, units and example settings (DESTDIR is honoured); starts nothing
	BIN_DIR=$(TARGET)/release-bin packaging/install.sh

uninstall: ## stops Lighter on this machine and removes it with all its state
	packaging/uninstall.sh

test: ## every tier of tests, the VM scenarios included
	@$(DEPS) build test vm
	@cargo build -q -p lighter-vm-test
	@$(TARGET)/debug/lighter-vm-test tiers

test-tier: ## one tier: make test-tier TIER=T2
	@$(DEPS) build test vm
	@cargo build -q -p lighter-vm-test
	@$(TARGET)/debug/lighter-vm-test tiers $(TIER)

demo: ## builds, starts a one-node cluster with real images, shows it at work and leaves nothing behind
	@$(DEPS) build demo
	@$(MAKE) --no-print-directory release
	@cargo build -q -p lighter-vm-test
	@LIGHTER_BIN_DIR=$(abspath $(TARGET))/release-bin $(TARGET)/debug/lighter-vm-test demo

bench: ## the figures of the design, next to Docker and podman where they are installed
	@$(DEPS) build test
	@$(MAKE) --no-print-directory release RELEASED='$(RELEASED) -p lighter-bench'
	LIGHTER_BIN_DIR=$(abspath $(TARGET))/release-bin LIGHTER_BENCH_DIR=$(abspath $(TARGET))/bench $(TARGET)/release/bench-node

bench-control: ## how much one control plane takes: placements a second, latency, memory, reconnects, services, decisions (ARGS='--runs 1')
	@$(DEPS) build test
	cargo build --release $(RELEASED) -p lighter-bench
	LIGHTER_BIN_DIR=$(abspath $(TARGET))/release LIGHTER_BENCH_DIR=$(abspath $(TARGET))/bench $(TARGET)/release/bench-control measure $(ARGS)

# SEED=n replays one seed with its trace; SEEDS=n [FIRST=n] runs many on all cores.
SIM := cargo test -q -p lighter-control --test sim -- --nocapture --exact
sim: ## the simulation of a cluster: make sim SEEDS=1000, make sim SEED=42
	$(if $(SEED),LIGHTER_SIM_SEED=$(SEED) $(SIM) seeds::a_seed_is_run_with_its_trace,LIGHTER_SIM_SEEDS=$(or $(SEEDS),100) LIGHTER_SIM_FIRST=$(or $(FIRST),1) $(SIM) seeds::all_promises_hold_for_the_fixed_seeds_and_those_of_this_commit)

lint: ## formatting and clippy, warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## formats every crate
	cargo fmt --all

shell: build ## a machine with Lighter installed, and a shell in it
	@$(DEPS) vm
	@cargo build -q -p lighter-vm-test
	@LIGHTER_BIN_DIR=$(abspath $(TARGET))/bin $(TARGET)/debug/lighter-vm-test shell

clean-vm: ## forgets the cached guest image and saved machine
	rm -rf $(TARGET)/vm-cache

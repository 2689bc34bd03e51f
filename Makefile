# What there is to do with this tree. `make` alone says it, too.
#
# PROVIDER=memory makes run and demo work without root and without installing anything.

PROVIDER ?= qemu
CARGO ?= cargo
# Hosts that tests must find: one that is missing fails them.
export HEARTH_REQUIRE ?= qemu

# Where scripts/release puts what it builds.
shipped := $(or $(CARGO_TARGET_DIR),target)/shipped

.DEFAULT_GOAL := help
.PHONY: help setup guest build run demo test test-long sim mutants alerts trace reliability test-firecracker deviants fuzz release shipped bench bench-full microbench instructions policies image lint docs fmt

help: ## Say what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Install what is missing, build, show ten VMs change hands, and stay up
	@PROVIDER=$(PROVIDER) scripts/demo --stay

demo: build ## The same, and end with what it left behind: nothing
	@PROVIDER=$(PROVIDER) scripts/demo

test: setup guest ## Every test, real VMs included, and the demo
	$(CARGO) test --workspace
	@# With the program that the tests were run on.
	scripts/demo

test-long: setup guest ## What takes too long for every change: many more random cases, and rounds
	PROPTEST_CASES=20000 HEARTH_SOAK_CYCLES=100000 HEARTH_LONG=1 $(CARGO) test --workspace --exclude hearth-providers
	PROPTEST_CASES=20000 $(CARGO) test --package hearth-providers --lib model
	HEARTH_SIM_SEEDS=1000 $(CARGO) test --package hearth-server --test sim
	[ "$$(id -u)" -ne 0 ] || \
	    HEARTH_QEMU_USER=7071:7072 $(CARGO) test --package hearth-providers --test conformance -- qemu
	HEARTH_KILLS=qemu $(CARGO) test --package hearth-server --test kills
	@# 3: there is no systemd here, which it says.
	scripts/test-systemd || [ $$? -eq 3 ]
	set -e; for round in 1 2 3 4 5; do \
	    $(CARGO) test --package hearth-providers --package hearth-server; \
	done

sim: ## A thousand seeds of the service in a simulated world; HEARTH_SEED=n runs one and prints its hash
	HEARTH_SIM_SEEDS=1000 $(CARGO) test --package hearth-server --test sim

mutants: ## Show that the simulation's checker finds faults of the product: one after the other is selected
	HEARTH_MUTANTS=1 $(CARGO) test --package hearth-server --test sim

alerts: ## Make the fault of every alert, in minutes: it fires in a real Prometheus, and resolves; needs prometheus, strace
	HEARTH_ALERTS=all HEARTH_REQUIRE=prometheus $(CARGO) test --package hearth-server --test prometheus -- alerts_fire

trace: setup guest ## Print the traces of acquires, warm and cold, on every provider; some are fakes
	$(CARGO) test --package hearth-server --test traces -- acquire --test-threads 1

reliability: setup guest ## Run the proofs of docs/reliability.md, and print the table that it shows
	@scripts/reliability

test-firecracker: ## Test on a real Firecracker: HEARTH_FIRECRACKER=PATH [HEARTH_JAILER=PATH]
	@scripts/test-firecracker

deviants: ## Show that the contract's cases can fail
	$(CARGO) test --package hearth-providers --test deviants --

fuzz: ## Search for input that hearth cannot bear: FUZZ_SECONDS (60) for each target; TARGETS picks some
	@scripts/fuzz $(TARGETS)

release: setup ## Build the programs as they are shipped, by a profile of themselves at work, into target/shipped; takes a while
	@scripts/release

# Without the toolchain's tool for profiles what is measured is the plain build, which the stamp says.
shipped: setup
	@scripts/release || { [ $$? -eq 3 ] && scripts/release --plain; }

bench: shipped guest ## Measure the budgets of docs/performance.md within five minutes, and print what is met
	$(shipped)/budgets $(if $(RESULTS),--json $(RESULTS))

bench-full: shipped guest ## The same with tokens, mTLS and traces, larger hosts and more samples, beside a peer, and what sizing keeps warm
	$(shipped)/budgets --full $(if $(RESULTS),--json $(RESULTS))
	$(CARGO) run --release --package hearth-benches --features peers --bin budgets -- peers
	$(CARGO) run --release --package hearth-benches --bin policies

microbench: ## Time single steps of the product; takes minutes
	$(CARGO) bench --package hearth-benches --bench micro

instructions: ## Count the instructions of single steps, by valgrind; BASE=COMMIT compares, and fails on growth
	@scripts/instructions --base "$(BASE)"

policies: ## Compare the depth that sizing keeps with other policies' on simulated claims; takes minutes
	$(CARGO) run --release --package hearth-benches --bin policies

image: ## Build the image of the Dockerfile on an engine of its own, without a registry, and run it once
	@scripts/image

lint: ## Formatting, lints, shell scripts, dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/lint
	scripts/supply-chain

docs: ## The documentation of the code, and whether every link in docs/ leads somewhere
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --document-private-items
	scripts/check-docs

fmt: ## Format the code
	$(CARGO) fmt --all

ifeq ($(PROVIDER),memory)
build:
	@command -v $(CARGO) >/dev/null || { \
	    echo "make: cargo is missing: install rustup, which then gets the version itself" >&2; exit 3; }
	$(CARGO) build --package hearth-server
else
build: setup guest
	$(CARGO) build --package hearth-server
endif

setup: ## Install what is missing, after saying what and from where
	@scripts/setup

guest: setup ## Build the small guest that tests and the first run boot
	@scripts/guest

# The one entry for everything that is done with this tree, by people and by CI. `make` lists the targets.

.DEFAULT_GOAL := help
.PHONY: help setup build test charts lint fmt fuzz bench bench-decisions bench-control-plane instructions demo images e2e node ci
SHELL := /bin/sh

# nft, iptables and ip stand in /usr/sbin on many systems.
export PATH := $(PATH):/usr/sbin:/sbin

# Where the pinned Rust is there under another name (scripts/toolchain.sh), use it under that.
ifndef RUSTUP_TOOLCHAIN
toolchain := $(shell sh scripts/toolchain.sh)
ifneq ($(toolchain),)
export RUSTUP_TOOLCHAIN := $(toolchain)
endif
endif

CARGO ?= cargo
target := $(or $(CARGO_TARGET_DIR),target)

# What goes into images and into the demo: programs that are linked with nothing, built once for both. Naming the target
# leaves build scripts and macros without the flag. PROFILE=dev is quicker to build.
PROFILE ?= release
host = $(shell rustc -vV | sed -n 's/^host: //p')
static = $(target)/$(host)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
build-static = RUSTFLAGS="$(RUSTFLAGS) -C target-feature=+crt-static" $(CARGO) build --profile $(PROFILE) \
	--target $(host) -p proxy -p control-plane -p cli -p tests -p bench --bin hauberk-proxy --bin hauberk-control-plane \
	--bin hauberk --bin hauberk-testapp --bin hauberk-demo

# How long `make fuzz` spends on each target.
FUZZ_SECONDS ?= 30

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Check what build and lab need; as root on Debian or Ubuntu, install it
	@sh scripts/setup.sh

build: setup ## Build every binary and every test (debug)
	$(CARGO) build --workspace --bins --tests

test: build ## Run unit, property, in-memory, lab and documentation tests
	$(CARGO) test --workspace --no-fail-fast

charts: setup ## Lint the charts and render them with several sets of values, with Helm 4
	sh scripts/helm.sh lint charts/hauberk-crds
	sh scripts/helm.sh lint charts/hauberk
	$(CARGO) test -p control-plane --test charts

lint: setup ## Check format, lints, documentation links and dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "$(CARGO) deny check bans licenses sources"; \
		$(CARGO) deny --workspace --log-level error check bans licenses sources; \
	else \
		echo "lint: dependencies not checked: there is no cargo-deny (cargo install --locked cargo-deny)"; \
	fi

fmt: ## Format the code
	$(CARGO) fmt --all

fuzz: setup ## Fuzz each target for FUZZ_SECONDS (30)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) CARGO=$(CARGO) sh scripts/fuzz.sh

bench: setup ## Measure Hauberk beside its peers, as root; BENCH="http1 idle" for some, BENCH=--list names them
	$(build-static) --bin hauberk-bench --bin hauberk-floor
	peers=$$(sh scripts/bench-peers.sh) && HAUBERK_BENCH_PEERS=$$peers \
		$(static)/hauberk-bench --output $(target)/bench $(BENCH)

bench-decisions: setup ## Measure what the pure decisions cost
	$(CARGO) bench -p bench --bench decisions -- $(BENCH)

# Built as the demo's programs are, so that nothing is compiled twice.
instructions: ## Count instructions under valgrind, compare with bench/instructions.json; UPDATE=1 accepts, CASES=name
	@sh scripts/setup.sh instructions
	$(build-static) --bin hauberk-instructions
	$(static)/hauberk-instructions $(if $(UPDATE),--update,--check) $(CASES)

# BENCH="--docs docs/performance-operator.md" writes the tables into the page; --help lists the options.
bench-control-plane: setup ## Measure the operator with 1,000 simulated proxies; BENCH=--smoke only looks for errors
	$(build-static) --bin hauberk-bench-control-plane
	$(static)/hauberk-bench-control-plane --json $(target)/bench/control-plane.json $(BENCH)

demo: setup ## Tell the story of README.md on this machine; KEEP=1 leaves it running
	$(build-static)
	$(static)/hauberk-demo $(if $(KEEP),--keep)

images: build ## Write the container images as OCI archives to target/images, without Docker
	@sh scripts/setup.sh images
	$(build-static)
	@sh scripts/images.sh $(static) $(target)/debug/hauberk-images $(target)/images

# On a cluster of yours: KUBECONFIG, and E2E_IMAGES for where you pushed the images.
e2e: node images ## Test on a real Kubernetes (as root, or KUBECONFIG=…); E2E=name for some, E2E_KEEP=1 to look around
ifeq ($(KUBECONFIG),)
	programs=$$(sh scripts/kubernetes.sh) && HAUBERK_KUBERNETES=$$programs HAUBERK_IMAGES=$(target)/images \
		HAUBERK_CLUSTER_LOGS=$(target)/e2e $(target)/debug/hauberk-e2e $(E2E)
else
	$(target)/debug/hauberk-e2e $(E2E)
endif

# Said before anything is built: that a node needs root.
node:
	@$(if $(KUBECONFIG),,sh scripts/setup.sh node)

ci: ## What CI runs: lint, test, demo, tests on a real Kubernetes, one run of each bench
	bash .ci/run

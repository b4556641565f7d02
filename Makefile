# The one entry for everything that is done with this tree, by people and by CI. `make` lists the targets.

.DEFAULT_GOAL := help
.PHONY: help setup build test lint fmt fuzz bench demo ci
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

# How long `make fuzz` spends on each target.
FUZZ_SECONDS ?= 30

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Check what build and lab need; as root on Debian or Ubuntu, install it
	@sh scripts/setup.sh

build: setup ## Build every binary and every test (debug)
	$(CARGO) build --workspace --bins --tests

test: build ## Run unit, property, in-memory, lab and documentation tests
	$(CARGO) test --workspace --no-fail-fast

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

bench: setup ## Measure what the pure decisions cost; BENCH=--test only runs each once
	$(CARGO) bench -p bench --bench decisions -- $(BENCH)

demo: setup ## Tell the story of README.md on this machine; KEEP=1 leaves it running
	$(CARGO) build --release --bins -p proxy -p control-plane -p tests
	$(target)/release/hauberk-demo $(if $(KEEP),--keep)

ci: ## What CI runs: lint, test, demo
	bash .ci/run

# Tasks for developers and CI. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup run build check test test-it test-smoke test-web test-faults test-servers plant-bugs soak bench bench-quick fmt clean

# Options for `quota-gate dev`, for example: make run ARGS="--port 9000 --fresh"
ARGS ?=
# Duration of `make soak`, in minutes.
MINUTES ?= 30

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install missing tools: servers, Node and Python for the official clients, linters
	@scripts/setup

run: ## start the gate with a private Redis and Postgres; options in ARGS
	@scripts/setup --run
	@scripts/prepare-pages
	cargo run --release --bin quota-gate -- dev $(ARGS)

build: ## build the release binary
	cargo build --release -p quota-gate-server

check: setup ## run all static checks, exactly as CI does
	@scripts/check

test: setup ## run every test
	cargo test --workspace

# The parts of `make test`, which CI runs in parallel.
test-it: setup ## run the unit and integration tests, except those of web/
	cargo test --workspace --lib --bins --examples --test it -- --skip binary::web
	cargo test --workspace --doc

test-smoke: setup ## run the model and a short selection of faults and benchmarks
	cargo test --workspace --test model --test faults --bench bench

test-web: setup ## run the tests of web/ against a gate
	cargo test --workspace --test it binary::web

test-faults: setup ## run every fault of docs/reliability.md, then test-servers (about 30 minutes); full disks need root
	cargo test --test faults -- --all
	scripts/rolling-upgrade
	cargo test --test model -- --include-ignored
	scripts/test-servers

test-servers: setup ## run the tests of the stores and some faults on Redis 8, Valkey 9, Postgres 15 to 18
	scripts/test-servers

plant-bugs: setup ## prove that test-faults finds bugs: plant ten and require that each is found
	scripts/plant-bugs

soak: setup ## inject random faults for MINUTES=30
	cargo test --test faults -- --soak $(MINUTES)

bench: setup ## run all benchmarks (about twenty minutes); the report is in target/bench-report/
	cargo bench

bench-quick: setup ## run all benchmarks in three minutes; ratios are approximate
	cargo bench -- --quick

fmt: ## format the sources
	cargo fmt --all

clean: ## remove build outputs (keeps the data of `make run` in .quota-gate)
	cargo clean

# What a developer and CI do. `make` lists it.

.DEFAULT_GOAL := help
.PHONY: help setup run build check test test-faults plant-bugs soak bench bench-quick fmt clean

# Passed on to `quota-gate dev`, for example: make run ARGS="--port 9000 --fresh"
ARGS ?=
# How long `make soak` goes on.
MINUTES ?= 30

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: servers, official clients' Node and Python, linters
	@scripts/setup

run: ## start the gate with a Redis and a Postgres of its own; options in ARGS
	@scripts/setup --run
	@scripts/prepare-pages
	cargo run --release -- dev $(ARGS)

build: ## build the release binary
	cargo build --release

check: setup ## all that can be said without running it; exactly what CI runs
	@scripts/check

test: setup ## run every test
	cargo test

test-faults: setup ## every fault of docs/reliability.md, some ten minutes; as root, for full disks
	cargo test --test faults -- --all
	cargo test --test model -- --include-ignored

plant-bugs: setup ## prove that test-faults finds bugs: plants six, each has to be found
	scripts/plant-bugs

soak: setup ## random faults for MINUTES=30
	cargo test --test faults -- --soak $(MINUTES)

bench: setup ## measure everything, some twenty minutes; the report is in target/bench-report/
	cargo bench

bench-quick: setup ## the same in three minutes: ratios that are about right
	cargo bench -- --quick

fmt: ## format the sources
	cargo fmt

clean: ## remove build products (the data of `make run` in .quota-gate stays)
	cargo clean

# Every target sets up what it needs: a virtual environment with the hash-pinned dependencies, and for the
# tests the Debian packages (PostgreSQL, iproute2).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo
STAMP := $(VENV)/.set-up
SOAK_SCHEDULES ?= 10000
SIMULATION_REPORT ?= $(or $(TMPDIR),/tmp)/varde-simulation-report.md

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types contracts mutate bench bench-log soak soak-properties soak-simulation soak-faults lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Varde needs Python 3.11 to 3.13; name one with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Run a federation of three nations on this machine (DEMO_DIR=demo)
	$(BIN)/varde demo --dir $(DEMO_DIR)

test: $(STAMP) debian-packages check ## Lint, types, import contracts and every test against real servers
	$(BIN)/pytest tests/core --cov=varde --cov-branch --cov-fail-under=100
	$(BIN)/pytest -n 2 --ignore=tests/core --ignore=tests/federation --ignore=tests/faults
	$(BIN)/pytest tests/federation tests/faults

check: lint types contracts ## Lint, types and import contracts only

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

mutate: $(STAMP) ## Mutation testing of the core modules that guard the door
	rm -rf mutants && mkdir -p mutants/src mutants/tests
	cp -R shared/varde mutants/src/ && cp -R tests/core tests/support mutants/tests/ && cp pyproject.toml mutants/
	cd mutants && nice $(CURDIR)/$(BIN)/mutmut run --max-children 2

bench: $(STAMP) ## Measure latency and throughput beside the raw broker path
	$(BIN)/python tests/bench

bench-log: $(STAMP) debian-packages ## The audit log at 10,000 and 1,000,000 entries (BENCH_LOG="--postgres --large 100000")
	$(BIN)/python tests/bench/log.py $(BENCH_LOG)

soak: soak-properties soak-simulation soak-faults ## The long forms, two hours: the next three one after the other

soak-properties: $(STAMP) ## New examples for the property tests of the core
	$(BIN)/pytest tests/core --hypothesis-profile=search

soak-simulation: $(STAMP) ## Simulated schedules with faults (SOAK_SCHEDULES=10000 SIMULATION_REPORT=FILE)
	PYTHONPATH=tests $(BIN)/python -m simulation --schedules $(SOAK_SCHEDULES) --report $(SIMULATION_REPORT)

soak-faults: $(STAMP) debian-packages ## Real faults (SOAK_FAULTS=200 SOAK_SEED=1 SOAK_NATIONS=EE,FI,LV,LT SOAK_REPORT=FILE); needs root
	$(BIN)/python tests/soak

lock: ## Pin the dependencies anew, with hashes and without addresses
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal \
	  --generate-hashes --no-emit-index-url --no-strip-extras --no-header --no-annotate -o requirements.lock

.PHONY: debian-packages
debian-packages:
	@deploy/debian-packages

clean: ## Remove the environment and what the tools left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache mutants

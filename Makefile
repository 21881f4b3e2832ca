# `make setup` builds .venv from the lock file; every other target needs it and calls it.
#
#   make demo    the main job on simulated logs, to predictions over REST
#   make test    all tests
#   make bench   every promised figure and its target; ARGS="--raw DIR --full --tests"
#   make lint    style, types and import contracts
#
# Another interpreter: make setup PYTHON=/path/to/python3.11

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.tfmtl-setup
ARGS ?=
JOBS ?= 2

.PHONY: help setup demo test bench lint format wheel lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,8p'

setup: $(STAMP)

# Debian and Ubuntu ship Python without ensurepip; the check says what brings it.
$(STAMP): requirements.lock setup.py
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    echo "make setup needs Python 3.11 (3.12 works too); found: $$("$(PYTHON)" --version 2>/dev/null || echo none)." >&2; \
	    echo "Debian, Ubuntu:  sudo apt-get install python3.11 python3.11-venv" >&2; \
	    echo "elsewhere:       https://www.python.org/downloads, then make setup PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi
	@if ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make setup needs the modules venv and ensurepip, which $(PYTHON) lacks." >&2; \
	    echo "Debian, Ubuntu:  sudo apt-get install python3-venv    (or python3.11-venv)" >&2; \
	    exit 1; \
	fi
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    echo "creating $(VENV) with $$("$(PYTHON)" --version)"; \
	    rm -rf $(VENV); "$(PYTHON)" -m venv $(VENV); \
	fi
	@echo "installing the packages of requirements.lock (some minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo "ready: $(BIN)/tfmtl --help"

demo: setup
	$(BIN)/tfmtl demo $(ARGS)

# Two processes took 16 minutes where one took 24: half of a test is spent tracing graphs
# on one core. A file or class stays in one process, with what its tests share.
test: setup
	$(BIN)/python -m pytest -c tests/pytest.ini -n $(JOBS) --dist loadscope tests $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks.run $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A stale build/ would slip removed files into the wheel.
wheel: setup
	rm -rf build dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation -w dist .
	rm -rf build
	@ls dist

# Resolves setup.py's ranges anew, in a venv of its own, and pins what came out.
lock:
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	"$(PYTHON)" -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --disable-pip-version-check --quiet ".[all]"; \
	"$$folder/venv/bin/python" -m pip check; \
	{ echo "# Every package of the environment, exactly. Made by: make lock"; \
	  "$$folder/venv/bin/python" -m pip freeze --all --exclude tfmtl --exclude pip | LC_ALL=C sort -f; } \
	> requirements.lock
	rm -rf build

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find tfmtl pipeline serving tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

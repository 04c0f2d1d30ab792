# Two commands do everything from a fresh clone: `make quickstart` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KSERVE := .venv-kserve
DATA ?=
# Whatever the shell has set, each command uses this project's environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH

.PHONY: help quickstart test test-all check generate bench clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

quickstart: $(VENV)/.quickstart ## Train, register, serve and ask about an image; DATA=folder for your own class folders
	$(BIN)/enxerto quickstart $(if $(DATA),--data "$(DATA)")

test: check ## Run the checks and every test but the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-all: check $(KSERVE)/.ready ## Run the checks and every test, with KServe's client too
	ENXERTO_TEST_KSERVE_PYTHON=$(CURDIR)/$(KSERVE)/bin/python $(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(VENV)/.dev ## Format, lint, types, layers, contracts, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && buf format --diff --exit-code && buf lint
	PYTHON=python protos/check_fresh.sh
	$(BIN)/python deploy/check.py

generate: $(VENV)/.dev ## Generate the code of the contracts in protos/
	PYTHON=python protos/generate.sh

bench: $(VENV)/.dev ## Compare serving and training with plain ONNX Runtime and plain PyTorch
	$(BIN)/python tests/benchmarks/serving/run.py
	$(BIN)/python tests/benchmarks/training/run.py

clean: ## Remove the environment and caches; a running platform is stopped first
	if [ -x $(BIN)/enxerto ]; then $(BIN)/enxerto down; fi
	rm -rf $(VENV) $(KSERVE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Each stamp is newer than what decides its contents, so that installing happens once.
$(VENV)/.quickstart: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[all,quickstart]'
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.quickstart

# Its protobuf is older than the one that this project needs.
$(KSERVE)/.ready:
	$(PYTHON) -m venv $(KSERVE)
	$(KSERVE)/bin/python -m pip install --disable-pip-version-check --quiet 'kserve==0.21.0'
	@touch $@

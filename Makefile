# `make` prints what there is; CI calls the same targets.

SHELL := /bin/bash -o pipefail

PYTHON ?= python3
MODELS ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo-models
READY := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12."; exit 1; }
	@echo "Installing into $(VENV); once, some minutes …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements-dev.lock \
		| awk '/Downloading|Installing/ { print substr($$0, 1, 100); fflush() }'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: install
install: $(READY) ## Create .venv with the router, its engines and the development tools

.PHONY: run
run: $(READY) ## Serve: MODELS=DIR your own models, else three small demonstration models
ifeq ($(MODELS),)
	@$(BIN)/python -m tests.tiny.demo $(DEMO)
	@exec $(BIN)/router serve --models-dir "$(DEMO)" --engine parrot-safetensors=mistral.rs
else
	@exec $(BIN)/router serve --models-dir "$(MODELS)"
endif

.PHONY: test
test: $(READY) ## Run the tests on the real engines
	@$(BIN)/pytest

.PHONY: format
format: $(READY) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lint
lint: $(READY) ## Check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: check
check: lint test ## Everything that must be green before a commit

.PHONY: lock
lock: ## Pin the versions of all dependencies anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-annotate --custom-compile-command "make lock" \
		--extra engines pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-annotate --custom-compile-command "make lock" \
		--extra engines --group dev pyproject.toml --output-file requirements-dev.lock

.PHONY: clean
clean: ## Remove what was built: .venv, demonstration models, caches
	@rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

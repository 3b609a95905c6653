# Every target does its own set-up: a machine with Python 3.11 or newer is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
JOBS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() or 1)")

.DEFAULT_GOAL := help
.PHONY: help demo test check format covid bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "ima needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## train and attack four networks on scans of digits: a table and pictures in minutes
	$(BIN)/ima compare digits --jobs $(JOBS)

test: $(STAMP) ## lint, types and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: $(STAMP) ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(STAMP) ## bring the code into the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

covid: $(STAMP) ## the CT experiment at 64x64 (needs the data set; see README)
	$(BIN)/ima compare table5_small --jobs $(JOBS)

# Those two ask for what does not go with the rest: requests 2.25, and a visdom that no longer builds.
$(PEERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-deps torchattacks adv-lib
	@touch $(PEERS)

bench: $(PEERS) ## how fast ima is, beside others: benchmarks/results in twenty minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

docs: $(STAMP) ## the handbook, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove the environment and caches, keep runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything here first makes .venv match compose/requirements.lock (see bootstrap.py).

# The first of these that is new enough; set PYTHON=... to choose another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
# Extra arguments, as in: make test ARGS="-k ledger -x"
ARGS ?=
# For every platform and Python at once, with hashes, and without a word about where packages came from.
COMPILE := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-header --no-annotate --no-emit-index-url pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help venv demo up test check docs pictures audit fix faults bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv:
	@if [ -z "$(PYTHON)" ]; then \
	echo "Python 3.11 or newer is needed and none is on PATH; install it or say make PYTHON=/path/to/python3." >&2; \
	exit 1; fi
	@$(PYTHON) bootstrap.py

demo: venv ## run the demo fleet, send it events, print the outcomes, stop
	@$(BIN)/fleet demo $(ARGS)

up: venv ## run the fleet until Ctrl-C
	@$(BIN)/fleet up $(ARGS)

# These measure: nothing else runs beside them.
ALONE := tests/integration/test_bench.py tests/integration/test_bench_api.py
# These mostly wait, so three run at a time.
SHARED = tests/e2e tests/chaos tests/fundamentals tests/integration $(UNIT)
UNIT ?= tests/unit
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(ALONE))

test: venv ## run every test (ARGS go to pytest, as in: make test ARGS="-k ledger")
ifeq ($(strip $(ARGS)),)
	@echo "About 25 minutes on two cores: most tests run three at a time, then the rest one by one."
	@failed=0; \
	$(BIN)/python -m pytest $(PARALLEL) $(SHARED) || failed=1; \
	$(BIN)/python -m pytest $(ALONE) || failed=1; \
	exit $$failed
else
	@$(BIN)/python -m pytest $(ARGS)
endif

check: venv ## the gate: format, lint, types, documentation, fast tests
	@$(BIN)/ruff format --check --quiet . || (echo "run: make fix" >&2; exit 1)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest --quiet --numprocesses 2 tests/unit $(ARGS)

docs: venv ## write the generated pages, and build the site into build/docs
	@$(BIN)/python -m tests.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: venv ## take the documentation's pictures of the console (needs Chromium)
	@$(BIN)/python -m tests.e2e.pictures

audit: venv ## list the packages (CycloneDX), and ask for known advisories
	@$(BIN)/python -m tests.audit

fix: venv ## format, and mend what the linter can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

faults: venv ## kill things at random and check that nothing is lost
	@$(BIN)/python -m pytest tests/chaos -m "" $(ARGS)

bench: venv ## measure, beside bare Celery (ARGS name the benchmark)
	@$(BIN)/fleet bench $(ARGS)

lock: venv ## resolve the dependencies anew (needs uv)
	@$(COMPILE) --upgrade --group dev --output-file compose/requirements.lock
	@$(COMPILE) --constraint compose/requirements.lock --group build --output-file compose/runtime.lock

clean: ## remove .venv and caches (never the data folder)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything works on a fresh machine with python3 >= 3.11 and make; `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST_FLAGS ?=
export T ?=
# As many workers as CPUs; PYTEST_FLAGS="-n 0" runs all in one process.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
QUICK := not (server or process or container or timing or slow)
STORE ?= moto
REPORT ?= build/faults
BENCH_FLAGS ?=

# Bytecode is cached also where the environment says otherwise: pytest starts in half the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv servers types lint quick t test parallel timing faults mutants bench demo images e2e lock clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

venv: $(READY) ## make .venv with everything that is needed to develop

# Bootstrapped by pip, from the same hash-locked file as the rest.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "modelfetch needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Say which: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	@echo "making .venv (once)"
	@$(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements/dev.txt > .venv/uv.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

servers: $(READY) ## build the servers that the tests use (Go; once, 3 minutes)
	@$(BIN)/python -m testkit.servers build

types: $(READY) ## types and import directions
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: types ## style, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check

quick: lint ## lint, then the tests that need no server and start no process; for the inner loop
	$(BIN)/pytest $(PARALLEL) -q -m "$(QUICK)" $(PYTEST_FLAGS)

t: $(READY) ## run the tests that T selects, by a part of their path or by -k: make t T=test_staging, T="redirect or proxy"
	@$(if $(T),,echo 'make t T=… selects tests, e.g. T=test_staging, T=volume, T="redirect or proxy"' >&2; exit 2)
	@files=$$(find tests -name 'test_*.py' -path "*$${T%%::*}*" | sort); \
	case "$$T" in *::*) files=$$(sed "s/\$$/::$${T#*::}/" <<< "$$files");; esac; \
	if [ -n "$$files" ]; then $(BIN)/pytest $$files $(PYTEST_FLAGS); else $(BIN)/pytest -k "$$T" $(PYTEST_FLAGS); fi

test: lint servers ## lint, then every test that needs no cluster, on all CPUs, with coverage
	$(MAKE) parallel
	$(MAKE) timing

parallel: $(READY)
	$(BIN)/pytest $(PARALLEL) -m "not timing" --cov --cov-report= $(PYTEST_FLAGS)

timing: $(READY)
	$(BIN)/pytest -m timing --cov --cov-append --cov-report=term $(PYTEST_FLAGS) || [ $$? = 5 ]  # 5: nothing selected

faults: $(READY) servers ## the campaigns of faults, kills and full disks, every case; tables in REPORT.md and .json
	$(BIN)/pytest tests/faults --full --campaign-report $(REPORT) $(PYTEST_FLAGS)

mutants: $(READY) servers ## switch off one safeguard at a time and see that the tests notice
	$(BIN)/python scripts/mutants.py

bench: $(READY) ## time, CPU and memory beside s5cmd, rclone, kserve-storage and the SDKs; see bench/README.md
	@$(BIN)/python -m bench $(BENCH_FLAGS)

demo: $(READY) ## train, push, pull, serve, predict (STORE=moto, minio or gcs)
	@$(BIN)/python demo/demo.py $(STORE)

images: ## build both images (ENGINE=docker, podman or buildah)
	@scripts/images init app

e2e: $(READY) ## the whole story on the cluster that KUBECONFIG points at
	@$(BIN)/python -m scripts.e2e

lock: $(READY) ## write requirements/*.txt anew (UPGRADE=1 takes the newest of everything)
	@$(BIN)/python scripts/lock.py $(if $(UPGRADE),--upgrade)

clean: ## remove what was made here, but not the caches
	rm -rf .venv .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist

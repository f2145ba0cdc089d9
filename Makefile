# Everything runs in .venv, which is made from requirements.txt; nothing else on the machine is touched.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# One thread a process: several run at once, and results do not depend on the number of cores.
TESTING := OMP_NUM_THREADS=1 COMPANION_DEVICE=cpu COMPANION_QUIET=1

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.PHONY: help env book test lint bench slurm-test pins clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## */\t/' | expand -t 14

env: $(READY)  ## the environment in .venv, from pinned requirements

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "installing the environment into $(VENV) ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --requirement requirements.txt
	@$(RUN) -m pip install --quiet --no-deps --editable .
	@touch $@

book: $(READY)  ## execute what is not fresh, build the book, print its path
	@$(RUN) -m lib execute --stale
	@$(RUN) -m lib sync
	@$(RUN) -m lib.run.book --jobs $(JOBS)

lint: $(READY)  ## style, format and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

test: lint  ## all checks: lint, generated files, strict build, unit tests, nbval, re-runs, built pages
	@$(RUN) -m lib sync --check
	@$(RUN) -m lib.run.book --strict --jobs $(JOBS)
	@$(TESTING) $(RUN) -m pytest tests notebooks --nbval-lax --numprocesses 2 --dist loadscope

bench: $(READY)  ## measurements: chapters, builds, trainer, losses (minutes)
	@OMP_NUM_THREADS=1 $(RUN) tests/benchmarks/collect.py $(ONLY)

slurm-test: $(READY)  ## a sweep on a real one-node SLURM, killed and resumed (needs root on Debian)
	@$(RUN) -m pip install --quiet --editable '.[cluster]'
	@$(RUN) tests/slurm/run.py

pins: $(READY)  ## write requirements.txt and environment.yml from what is installed
	@$(RUN) -m lib.run.pins

clean:  ## remove built pages and results of runs, not the environment
	@rm -rf _build runs conf.py .companion .snakemake

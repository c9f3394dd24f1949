# Everything a fresh machine with Python 3.11 and make needs. PIP_ARGS goes to pip, so that you can choose a CPU build:
#   make demo PIP_ARGS="--index-url URL-OF-A-CPU-BUILD --extra-index-url URL-OF-THE-REST"
# torch and torchvision must come from the same index: a CPU torch cannot load a CUDA torchvision.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
ONLY ?=
TARGET ?=
SINCE ?= HEAD~1
CHAOS ?=
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
POSTGRESQL = apt-get install --yes --quiet --no-install-recommends postgresql

.PHONY: demo test pytest test-slow test-clusters test-services chaos lint perf reproduce unchanged clean

demo: .venv/.core
	$(BIN)/engram quickstart

test: .venv/.all
	$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: .venv/.all
	$(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile --no-loadscope-reorder  # a file's fixtures are made once; short doctests last

test-slow: .venv/.all
	$(BIN)/python -m pytest -m "slow and not cluster and not services"

# Slurm and Ray on this machine; the former from the system's packages: apt-get install slurm-wlm munge
test-clusters: .venv/.all
	$(BIN)/python -m pytest -m cluster

# MLflow's server on PostgreSQL, both real, on loopback ports and in folders that are removed. Debian's packages are
# installed where that is possible; where it is not, and they are not there, the tests say so and are skipped.
test-services: .venv/.services
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && { \
			timeout 90 $(POSTGRESQL) --download-only || { timeout 60 apt-get update --quiet && timeout 90 $(POSTGRESQL) --download-only; }; \
		} && $(POSTGRESQL) --no-download; \
	} || echo "PostgreSQL is not installed, and cannot be from here: tests that need it are skipped"
	$(BIN)/python -m pytest -m services tests/services

# 200 random kills during sweeps; CHAOS="--kills 20 --trials 10 --seed 3" makes it smaller, or another one
chaos: .venv/.services
	$(BIN)/python tests/chaos/storm $(CHAOS)

lint: .venv/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --warnings
	$(BIN)/lint-imports

perf: .venv/.perf
	MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 $(BIN)/python -m engram.benchmarks.perf $(ONLY)  # as workers have it

reproduce: .venv/.core
	$(BIN)/engram reproduce $(TARGET)

# Do trials give the numbers they gave at an earlier revision? make unchanged SINCE=v0.3.0
unchanged: .venv/.all
	$(BIN)/python tests/unchanged $(SINCE)

# One stamp per extra: an unchanged project installs nothing the second time.
.venv/.core: EXTRA =
.venv/.all: EXTRA = [all]
.venv/.perf: EXTRA = [perf]
.venv/.services: EXTRA = [all,services]
# Its dependencies are in our extra: those it names itself pull GPL solvers that nothing here needs.
.venv/.all .venv/.perf .venv/.services: ALONE = avalanche-lib
.venv/.core .venv/.all .venv/.perf .venv/.services: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e ".$(EXTRA)"
	$(if $(ALONE),$(INSTALL) --no-deps $(ALONE))
	touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "engram needs Python 3.11 or newer; got $$($(PYTHON) --version). Set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv

# Everything runs in one virtual environment, .venv. It is made when it is missing, and brought up to date when
# pyproject.toml or constraints.txt change. Only Python (3.11 or newer) and make have to be there before; on Windows a
# Unix shell too, which Git for Windows has. The tests at the ends of the promised versions have environments of their own.

.DEFAULT_GOAL := help
.PHONY: help demo test faults coverage test-oldest test-newest lint format clean FORCE

# The interpreter that makes .venv: `make PYTHON=/path/to/python test` chooses another.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python,$(shell \
    $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
# Two processes. A file stays in one of them, so that what its tests share (a detector, an exported graph) is made once.
WORKERS := -n 2 --dist loadfile
# Where pip takes versions from; empty: the newest ones.
CONSTRAINTS := constraints.txt
RUN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts/python.exe,bin/python) -m
STAMP := $(VENV)/.installed
ARGS ?=

help: ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1: /p' $(MAKEFILE_LIST)

demo: $(STAMP) ## the whole tour on a generated dataset: train, evaluate, draw
	$(RUN) singleshot demo $(ARGS)

test: $(STAMP) ## the fast tests; `make test ARGS="tests/ops -k nms"` for some, ARGS="-m slow" for the slow ones
	OMP_NUM_THREADS=1 $(RUN) pytest $(WORKERS) $(ARGS)

faults: $(STAMP) ## an hour of faults: bad files, kills, full disks, signals; SEED=1, CASES=100, ARGS="--kind images" choose
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(RUN) faults $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) $(ARGS)

coverage: $(STAMP) ## the fast tests, and which lines and branches of src/ they do not reach; fails below today's level
	OMP_NUM_THREADS=1 $(RUN) pytest $(WORKERS) --cov --cov-report=term-missing:skip-covered $(ARGS)

test-oldest: ## the fast tests with the oldest versions that we promise (a large download; Python 3.11 or 3.12)
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

test-newest: ## the fast tests with the newest versions of all that we stand on (a large download)
	@rm -f .venv-newest/.installed
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

lint: $(STAMP) ## style, format and types, changing nothing
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy --strict src

format: $(STAMP) ## put the code into the project's format
	$(RUN) ruff check --fix-only .
	$(RUN) ruff format .

clean: ## remove the environments, caches and builds; never a run
	rm -rf .venv .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis .faults .coverage build dist
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamp holds the folder that .venv was made for: scripts and the editable install point there, so a copied or
# moved tree gets a new one. It is written last, so that an install that failed is tried again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it with make PYTHON=..." >&2; exit 1; }
	@if test -e $(STAMP) && test "$$(cat $(STAMP))" != "$(CURDIR)"; then rm -rf $(VENV); fi
	@$(RUN) pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); \
	    echo "Python's venv module is needed (on Debian and Ubuntu: the package python3-venv)" >&2; exit 1; }
	@rm -f $(STAMP)
	$(RUN) pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade --upgrade-strategy eager) \
	    -e '.[dev]'
	@echo "$(CURDIR)" > $(STAMP)

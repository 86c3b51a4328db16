# `make demo` and `make test` do everything on a fresh machine: they make .venv, install pinned versions into it, and run.
# Needs Python 3.11 to 3.13 (choose one with PYTHON=python3.12). Nothing outside this folder is changed.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types bench clean

demo: .venv/demo-ready
	$(BIN)/einsmith demo -o demo-output

test: .venv/test-ready lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

lint: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test-ready
	$(BIN)/mypy

bench: .venv/test-ready
	$(BIN)/python benchmarks/startup.py

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "einsmith needs Python 3.11 to 3.13, this is " + sys.version'
	$(PYTHON) -m venv .venv

.venv/demo-ready: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[kernels,prove]'
	touch $@

.venv/test-ready: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	touch $@ .venv/demo-ready

clean:
	rm -rf .venv build demo-output .pytest_cache .mypy_cache .ruff_cache

# Everything a newcomer needs: `make demo`, `make test`, `make check`.
# All paths are relative, so a checkout below a path with spaces works.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
# Test files side by side: most of them wait for processes more than they compute.
JOBS ?= 5
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help demo test bench-test check format screenshots bench clean

help:
	@echo "make demo    a sample sprint, done live at http://127.0.0.1:$(PORT)   (PORT=9000 make demo moves it)"
	@echo "make test    the whole test suite"
	@echo "make check   formatting, lint and types"
	@echo "make format  put the formatting right"
	@echo "make screenshots  take the pictures of docs/screenshots anew"
	@echo "make bench   measure everything, write bench/RESULTS.md"
	@echo "make clean   remove what was built"

demo: $(VENV)/installed
	@exec $(BIN)/sprintrunner demo --port $(PORT)

test: $(VENV)/installed-for-tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# The bench's own tests put minutes of load on a machine.
bench-test: $(VENV)/installed-for-tests
	@$(BIN)/python -m pytest -m bench

check: $(VENV)/installed-for-tests
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; echo "make format puts it right"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --strict --no-error-summary

format: $(VENV)/installed-for-tests
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

screenshots: $(VENV)/installed-for-tests
	@SCREENSHOTS=1 $(BIN)/python -m pytest tests/test_screenshots.py

bench: $(VENV)/installed-for-bench
	@$(BIN)/python bench/all.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with PYTHON=…: PYTHON=python3.12 make demo"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Building $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

# Editable, so that what runs is always what stands here; the packaging test proves the wheel.
$(VENV)/installed: pyproject.toml $(BIN)/python
	@echo "Installing the packages ..."
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	@echo "Installing the packages for tests and checks ..."
	@$(PIP) install --editable '.[test,dev]'
	@touch $@

$(VENV)/installed-for-bench: $(VENV)/installed-for-tests
	@echo "Installing the rivals of the bench ..."
	@$(PIP) install --editable '.[bench]'
	@touch $@

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis test-results

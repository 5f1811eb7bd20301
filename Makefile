# make demo      a small network trained and timed, on this machine
# make test      lint, types and the tests
# make test-all  the same with the slow tests
# make test-torch VERSION=2.9.1   the tests with another release of PyTorch, in an environment of its own
# make fuzz      random equations and networks against the plain loop, for an hour or so
# make bench     measured speed, on this machine
#
# All run in .venv, which the first call makes. `make test PYTHON=python3.12` takes another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; to compile all that is installed would take longer.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test test-all test-torch check format fuzz bench clean

demo: $(VENV)/.demo
	$(BIN)/python -m spikeloom demo

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test: check
	$(PYTEST)

test-all: check
	$(PYTEST) -m ""

test-torch:
	$(PYTHON) -m venv .venv-torch-$(VERSION)
	.venv-torch-$(VERSION)/bin/python -m pip install --quiet 'torch==$(VERSION)' 'numpy<2.4' --editable '.[dev]'
	.venv-torch-$(VERSION)/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz

bench: $(VENV)/.demo
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-torch-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are newer than what they were made from, so that a second call installs nothing.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.demo

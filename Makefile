# make demo      a small network trained and timed, on this machine
# make test      lint, types and the tests
# make test-all  the same with the slow tests
# make test-torch VERSION=2.9.1   the tests with another release of PyTorch, in an environment of its own
# make fuzz      random equations and networks against the plain loop, for an hour or so
# make conformance   the same networks here and in other frameworks that read NIR, in an environment of their own
# make docs      the site, in build/site
# make bench     measured speed, on this machine
# make cortex-m4 a network as C, built for a Cortex-M4 and run in QEMU
#
# All run in .venv, which the first call makes. `make test PYTHON=python3.12` takes another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; to compile all that is installed would take longer.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test test-all test-torch check lint types tests format fuzz conformance docs bench cortex-m4 clean

demo: $(VENV)/.demo
	$(BIN)/python -m spikeloom demo

MARKED :=
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(MARKED)

# Types are checked in parallel with the tests: mypy takes one core.
test: lint
	$(MAKE) --no-print-directory --jobs=2 types tests

test-all: lint
	$(MAKE) --no-print-directory --jobs=2 types tests MARKED='-m ""'

tests: $(VENV)/.dev
	$(PYTEST)

check: lint types

test-torch:
	$(PYTHON) -m venv .venv-torch-$(VERSION)
	.venv-torch-$(VERSION)/bin/python -m pip install --quiet 'torch==$(VERSION)' 'numpy<2.4' --editable '.[dev]'
	.venv-torch-$(VERSION)/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz

# Some of these pin old releases of nir, or what they do not need to read a graph; a line that fails leaves one out.
CONFORMANCE := .venv-conformance/bin/python

conformance:
	$(PYTHON) -m venv .venv-conformance
	$(CONFORMANCE) -m pip install --quiet --constraint constraints.txt --editable '.[nir]' nirtorch 'numpy<2.4' scipy tqdm
	-$(CONFORMANCE) -m pip install --quiet snntorch==1.0.0
	-$(CONFORMANCE) -m pip install --quiet --no-deps spikingjelly==2.0.0 && $(CONFORMANCE) -m pip install --quiet loguru
	-$(CONFORMANCE) -m pip install --quiet --no-deps norse==1.1.0
	-$(CONFORMANCE) -m pip install --quiet --no-deps sinabs==3.1.3 && $(CONFORMANCE) -m pip install --quiet pbr
	-$(CONFORMANCE) -m pip install --quiet --no-deps rockpool==3.1.0
	-$(CONFORMANCE) -m pip install --quiet 'numpy<2.4' jax flax optax grain jax-tqdm && $(CONFORMANCE) -m pip install --quiet --no-deps spyx==1.0.0
	-$(CONFORMANCE) -m pip install --quiet 'numpy<2.4' brian2 nest-simulator
	$(CONFORMANCE) -m spikeloom conformance

# Warnings are errors. Scripts of the gallery that have not changed are not run again.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --jobs auto --doctree-dir build/doctrees docs build/site
	$(BIN)/python docs/website/links.py build/site

bench: $(VENV)/.demo
	$(BIN)/python -m benchmarks

cortex-m4: $(VENV)/.demo
	$(BIN)/python examples/cortex_m4/run.py

clean:
	rm -rf docs/reference docs/tutorials $(VENV) .venv-torch-* .venv-conformance build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are newer than what they were made from, so that a second call installs nothing.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[docs]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.demo

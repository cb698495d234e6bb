# make quickstart   environment, then the main job on synthetic data (runs/quickstart/)
# make test         environment, then linters, types, import rules, documentation and tests
# make docs         environment, then the documentation site (site/index.html)
# make environment  .venv/ alone
#
# PYTHON names the interpreter the environment is made with: make test PYTHON=python3.12

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
# Stands for the installed environment: older than the files it was made from means install again.
STAMP := $(VENV)/.installed
# Warnings are errors, see mkdocs.yml. The variable silences what the theme says about a future MkDocs.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.PHONY: checks docs environment quickstart test tests

quickstart: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/quickstart/run.sh

# What takes a second comes first. The rest side by side: mypy and mkdocs know but one core each.
test: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory --jobs=2 checks tests

checks: $(STAMP)
	$(BIN)/mypy
	$(SITE)

# One thread per test process: with more, the processes of `-n 2` compete for the same cores. With `worksteal` the tests
# of a module stay together, and what they share is made once.
tests: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

environment: $(STAMP)

docs: $(STAMP)
	$(SITE)

# pip would compile 20,000 files one after the other, for a minute. Not every one of them is valid Python.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("padrec needs Python 3.11 or newer, $(PYTHON) is %d.%d; name another one: make PYTHON=..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --editable '.[dev,docs]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

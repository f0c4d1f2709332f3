# The README's two commands: `make reproduce` and `make test`. Both set up .venv first; a set-up that is done is not repeated.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONHASHSEED := 0

.PHONY: help reproduce test test-fast lint lab explore book clean

help: ## say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

reproduce: $(VENV)/installed ## set up, run every model on the embedded data set, write reports/index.html
	$(BIN)/imgrec run matrices/default.yaml --runs runs --reports reports

# A file, or a notebook, stays with one worker: its tests share what they have made. tests/conftest.py says which comes first.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

# Tests are small: threads would cost more than they bring, and far more on a busy machine.
test test-fast: export OMP_NUM_THREADS ?= 1
test test-fast: export IMGREC_CACHE ?= $(CURDIR)/.cache
test: $(VENV)/installed-test lint ## set up, check the code, run the tests and the notebooks
	$(BIN)/python -m pytest $(TWO_WORKERS) tests
	PYTHONPATH=tests $(BIN)/python -m pytest $(TWO_WORKERS) --nbval --nbval-cell-timeout=300 -p notebook_comparison notebooks

test-fast: $(VENV)/installed-test ## the tests that do not take long, while one writes code
	$(BIN)/python -m pytest $(TWO_WORKERS) -m 'not slow' tests

lint: $(VENV)/installed-test ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lab: $(VENV)/installed ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --ip 127.0.0.1 notebooks

explore: $(VENV)/installed ## open the explorer in the browser on the runs in RUNS (runs/, where there is one)
	$(BIN)/imgrec explore $(if $(RUNS),'$(RUNS)')

RUNS ?= $(wildcard runs)

book: $(VENV)/installed ## build the book, docs/_build/html, from chapters, notebooks and docstrings; no network is needed to read it
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[book,notebooks]'
	$(BIN)/python -m sphinx -q -E -W --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean: ## remove what runs have left, not the environment
	rm -rf runs .cache docs/_build docs/generated reports/*.ipynb reports/*.status.json reports/*.html

$(VENV)/created:
	$(PYTHON) -c 'import sys; sys.exit("imgrec needs Python 3.11 or newer, not " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[notebooks]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install -c constraints.txt -e '.[fuzz,notebooks,test]'
	touch $@

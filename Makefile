# Two commands do everything on a fresh machine with Python 3.11: make demo, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: help setup demo test lint bench soak clean
help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## create the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt pip setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[train,test,lint]'
	@touch $(STAMP)

demo: $(STAMP) ## map the demo scene with the bundled model, and show where the results are
	$(BIN)/geoseg demo -o demo

test: $(STAMP) ## run every test
	$(BIN)/python -m pytest -n auto --dist worksteal || { \
	    echo "what failed beside others is tried once more, alone" && $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

soak: $(STAMP) ## run the long fault tests, and all others on new random cases
	$(BIN)/python -m pytest -m soak --timeout 7200
	$(BIN)/python -m pytest -n auto --dist worksteal --hypothesis-profile search

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## measure speed and memory; prints a table
	$(BIN)/python -m tests.benchmarks

clean: ## remove the environment and the demo
	rm -rf .venv demo

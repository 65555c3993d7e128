# One set of commands for a laptop and for CI. Every target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LINT   := .lint

.PHONY: demo test lint format clean setup

demo: setup            ## import, train, deploy and replay a real plant
	$(BIN)/penstock demo --plant gas-turbine $(DEMO)

test: setup            ## every test, against the real Triton and a real Dask cluster
	$(BIN)/python -m pytest $(TESTS)

lint: setup            ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(LINT) build
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-compile --target $(LINT) .
	MYPYPATH=$(LINT) $(BIN)/mypy --cache-dir .mypy_cache -p penstock
	cd $(LINT) && PYTHONPATH=. ../$(BIN)/lint-imports --config ../pyproject.toml

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[site,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) $(LINT) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

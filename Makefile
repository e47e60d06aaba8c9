# Every target does all of its own set-up; a second run reuses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test check format verify bench clean

demo: $(READY)  ## Run the embedded simulation and write its report
	$(BIN)/fedcad simulate configs/simulations/chest-xray-phantom.yaml

test: check  ## All gates: format, lint, types, imports, dependencies, tests
	$(BIN)/pytest -m "not slow" -n auto

check: $(READY)  ## The gates without the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(READY)  ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

verify: $(READY)  ## Slower checks; writes docs/verification.md
	$(BIN)/python tests/verify.py

bench: $(READY)  ## Benchmarks; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit( \
		f"FedCAD needs Python 3.11 to 3.13; $(PYTHON) is {v.major}.{v.minor}. Give another: PYTHON=python3.12")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing FedCAD and what it needs into $(VENV); this takes a few minutes the first time."
	$(BIN)/pip install -qq --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

clean:  ## Remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info

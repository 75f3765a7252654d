# Needs only Python >= 3.11 with venv and pip. Every target makes .venv first when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test faults check bench clean

demo: $(STAMP)  ## a swarm on this machine
	$(BIN)/ubcp demo

test: $(STAMP)
	$(BIN)/pytest -q -n 2 tests/unit tests/property tests/vectors
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not full" --reruns 1 tests/integration tests/faults

faults: $(STAMP)  ## every fault at every step of a round, every lie of a hostile peer: about 8 minutes
	$(BIN)/pytest -q tests/faults

check: $(STAMP)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP)
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/round.py

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ubcp: error: $(PYTHON) is older than Python 3.11"; \
		  echo "ubcp: hint: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Installing into $(VENV) (a few minutes, once) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -c constraints.txt -e '.[peer,light,dev]'
	@touch $@

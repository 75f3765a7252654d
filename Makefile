# Needs only Python >= 3.11 with venv and pip. Every target makes .venv first when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test faults properties mutants fuzz vectors check bench clean

demo: $(STAMP)  ## a swarm on this machine
	$(BIN)/ubcp demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 tests/unit tests/property tests/vectors tests/fuzz  # both cores are taken already
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not full" --reruns 1 tests/faults tests/integration

faults: $(STAMP)  ## every fault at every step of a round, every lie of a hostile peer, every villain of the demo: about 20 minutes
	$(BIN)/pytest -q tests/faults
	$(BIN)/pytest -q -m full tests/integration

properties: $(STAMP)  ## the property tests with 20 times as many examples
	$(BIN)/pytest -q -n 2 --timeout 3600 --hypothesis-profile long tests/property

FUZZ_SECONDS ?= 30
fuzz: $(STAMP)  ## changed bytes into every decoder of the ledger, FUZZ_SECONDS for each
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

mutants: $(STAMP)  ## does a test notice every small change of the ledger's rules? (docs/mutation.md)
	$(BIN)/python -m tests.mutation

vectors: $(STAMP)  ## rewrite the test vectors, after a deliberate change of a format or rule
	$(BIN)/python -m tests.vectors.generate
	$(BIN)/python -m tests.vectors.ledger.generate
	$(BIN)/python -m tests.vectors.allocator.generate

check: $(STAMP)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP)
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/round.py
	$(BIN)/python bench/audit.py
	$(BIN)/python bench/gossip.py
	$(BIN)/python bench/allocator.py
	$(BIN)/python bench/verification.py
	$(BIN)/python bench/overhead.py

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ubcp: error: $(PYTHON) is older than Python 3.11"; \
		  echo "ubcp: hint: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Installing into $(VENV) (a few minutes, once) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -c constraints.txt -e '.[peer,light,dev]'
	@$(BIN)/python -m compileall -q ubcp_p2p || true  # a trainer, in its sandbox, may not write what it has compiled
	@touch $@

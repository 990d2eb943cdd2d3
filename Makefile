# Every target makes its own virtual environment; nothing but Python 3.11, make and a compiler is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-saelens lint types bench proofs verified-checker clean

# The main job on the bundled cases: certify, attack, replay, check.
demo: $(VENV)/.demo
	$(BIN)/sae-verify demo

# Everything that must hold: lint, types, tests (slow ones included), examples.
test: $(VENV)/.dev lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# Differential tests against SAELens, which pulls about 1 GB: in an environment of their own.
test-saelens: .venv-saelens/.ready
	.venv-saelens/bin/python -m pytest -m saelens tests/sae

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# The theorems in Coq, and the checker extracted from them; both need Debian's coq and MathComp packages (see proofs/README.md).
proofs:
	$(MAKE) -C proofs

verified-checker:
	$(MAKE) -C proofs/checker all audit

# torch is installed on its own first: constraints.txt pins the build that is small.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[hf]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.demo

.venv-saelens/.ready: constraints.txt pyproject.toml
	test -x .venv-saelens/bin/python || $(PYTHON) -m venv .venv-saelens
	.venv-saelens/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	.venv-saelens/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[saelens]' pytest hypothesis
	touch $@

clean:
	rm -rf $(VENV) .venv-saelens out .pytest_cache .ruff_cache .hypothesis

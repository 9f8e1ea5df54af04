# make demo   sets up, tells the whole story on the embedded default, stays up until Ctrl-C (ONCE=1: ends)
# make test   sets up, runs every test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SHARD ?= 1/1
MINUTES ?= 10

.PHONY: demo test lint types contracts check fix docs bench bench-gate profile faults fuzz soak scorecard lock clean

demo: $(VENV)/.runtime
	@$(BIN)/pangate demo $(if $(ONCE),--once)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

check: lint types contracts test

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python -m docs.generate

bench: $(VENV)/.dev
	$(BIN)/python bench/peers/install.py
	$(BIN)/python -m bench.run

bench-gate: $(VENV)/.dev
	$(BIN)/python -m bench.gate

profile: $(VENV)/.dev
	$(BIN)/python -m bench.profile

faults: $(VENV)/.dev
	$(BIN)/python -m bench.faults --shard $(SHARD)

# Atheris has wheels for few systems; where it has none, the parsers are fuzzed by hypothesis alone.
fuzz: $(VENV)/.dev
	-$(PIP) --require-hashes --only-binary :all: -r requirements/fuzz.txt
	$(BIN)/python -m bench.fuzz --minutes $(MINUTES)

soak: $(VENV)/.dev
	$(BIN)/python -m bench.soak

scorecard: $(VENV)/.dev
	$(BIN)/python -m bench.scorecard --suites "$(SUITES)"

lock: $(VENV)/.dev
	sh requirements/lock.sh

clean:
	rm -rf $(VENV) var .mypy_cache .ruff_cache .hypothesis

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/build.txt
	$(PIP) --require-hashes -r requirements/runtime.txt
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime $(VENV)/peers/.ready requirements/dev.txt
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# The fake Stripe is GPL: it lives in its own environment and is only ever run as a process of its own.
$(VENV)/peers/.ready: requirements/peers.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/peers.txt
	@touch $@

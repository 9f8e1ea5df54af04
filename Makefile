# make demo   sets up, tells the whole story on the embedded default, stays up until Ctrl-C (ONCE=1: ends)
# make test   sets up, runs every test
# make compiled   the same gateway as extension modules, in an environment of its own (docs/adr/0008); wants a C compiler
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SHARD ?= 1/1
COMPILED := .venv-compiled
COMPILED_PIP := $(COMPILED)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test compiled test-compiled lint types contracts check fix docs bench bench-gate profile faults scorecard lock clean

demo: $(VENV)/.runtime
	@$(BIN)/pangate demo $(if $(ONCE),--once)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(ARGS)

compiled: $(COMPILED)/.wheel

# Without the working directory on sys.path, `gateway` is the installed one, in every process that a test starts too.
test-compiled: $(COMPILED)/.dev
	PYTHONSAFEPATH=1 $(COMPILED)/bin/python -m pytest -q -o pythonpath= -p tests.compiled $(ARGS)

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
	@$(MAKE) --silent compiled || echo "bench: the compiled gateway is not measured" >&2
	$(BIN)/python -m bench.run

bench-gate: $(VENV)/.dev
	$(BIN)/python -m bench.gate

profile: $(VENV)/.dev
	$(BIN)/python -m bench.profile

faults: $(VENV)/.dev
	$(BIN)/python -m bench.faults --shard $(SHARD)

lock: $(VENV)/.dev
	sh requirements/lock.sh

clean:
	rm -rf $(VENV) $(COMPILED) var .mypy_cache .ruff_cache .hypothesis

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

# Not editable: what is compiled lies in this environment alone, never beside the sources.
$(COMPILED)/.wheel: requirements/runtime.txt requirements/build.txt requirements/compile.txt pyproject.toml hatch_build.py \
		$(shell find gateway -type f ! -path '*/__pycache__/*')
	test -x $(COMPILED)/bin/python || $(PYTHON) -m venv $(COMPILED)
	$(COMPILED_PIP) --require-hashes -r requirements/build.txt -r requirements/compile.txt -r requirements/runtime.txt
	rm -rf $(COMPILED)/dist
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(COMPILED)/bin/python -m hatchling build -t wheel -d $(COMPILED)/dist
	$(COMPILED_PIP) --no-deps --no-index --force-reinstall $(COMPILED)/dist/*.whl
	@touch $@

# The checkout comes last on sys.path: tests, examples and benchmarks are found there, the gateway is found before.
$(COMPILED)/.dev: $(COMPILED)/.wheel $(VENV)/peers/.ready requirements/dev.txt
	$(COMPILED_PIP) --require-hashes -r requirements/dev.txt
	$(COMPILED)/bin/python -c "import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path('purelib'), 'checkout.pth').write_text('$(CURDIR)')"
	@touch $@

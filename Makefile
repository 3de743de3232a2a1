# Everything lives in .venv; a target that is up to date is not made again.
PYTHON ?= python3
BIN := .venv/bin
# One thread of XLA's for each worker: small programs run no faster on more. Who has done its half helps the other, so that
# most files have one worker, and what their tests share is made once.
TEST := NPROC=1 $(BIN)/pytest -n 2 --dist worksteal

.PHONY: install demo test test-environments test-thorough test-flags test-faults test-mutants lint notebooks bench-smoke lock clean

install: .venv/installed

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxpg needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m jaxpg.experiment.demo

test: install lint
	$(TEST)

# A run on every suite and backend, in an environment of its own that has all of them; takes the better part of an hour.
test-environments: .venv-environments/installed
	.venv-environments/bin/pytest -m environments tests/experiment/test_every_suite.py tests/jaxpg_envs/test_conformance.py

.venv-environments/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv-environments
	.venv-environments/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock \
		--editable '.[dev,jumanji,pgx,craftax,xminigrid,playground]'
	touch $@

lint: install
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports --no-logo > /dev/null || $(BIN)/lint-imports
	$(BIN)/mypy --no-error-summary

# What others of its kind stand for in `make test`; takes minutes.
test-thorough: install
	$(TEST) -m thorough

# Every algorithm, tiny, under the flags by which people look for mistakes; takes half an hour, most of it without jit.
test-flags: install
	for flag in JAX_ENABLE_X64 JAX_DEBUG_NANS JAX_DISABLE_JIT; do echo $$flag; \
		env $$flag=1 $(BIN)/python tests/flags.py || exit 1; done

# Processes killed, files damaged, disks full, odd input: tiny runs and sweeps survive them; takes up to twenty minutes.
test-faults: install
	$(BIN)/python tests/faults.py

# Mistakes are planted in a copy, one by one, and its tests must notice each; takes the better part of an hour.
test-mutants: install
	$(BIN)/python tests/mutants.py

# Executes the notebooks afresh, without writing to them; takes minutes.
notebooks: install
	$(BIN)/pytest --nbmake --nbmake-timeout=1200 notebooks

bench-smoke: install
	$(BIN)/python -m benchmarks --all --size smoke

# Pins for every platform and Python that we support; needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .venv-environments .cache

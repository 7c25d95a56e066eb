# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-full test-engines lint bench clean

demo: $(VENV)/.ready
	@mkdir -p out
	@$(BIN)/windtunnel run --on mtt-s5000,h100-sxm,h20 --out out/demo.wt examples/train_gpt.py
	@$(BIN)/windtunnel report out/demo.wt

test: lint
	$(BIN)/python -m pytest -n 2 -q -m "not slow"

test-full: lint
	$(BIN)/python -m pytest -n 2 -q

# vLLM's and SGLang's own schedulers against the recorded decisions, real clients against both engines; four
# environments of 8 GB together, made once.
test-engines: $(VENV)/.ready
	sh tests/engines/run.sh

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

# PyTorch first and by exact version: everything after it is then satisfied and pulls in no other build.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Windtunnel needs Python 3.11 or later") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[torch,server,data,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps openmmtools==0.27.0  # test systems: data only
	touch $@

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each target makes the virtual environment that it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test lint bench soak clean

quickstart: .venv/.base  ## train two small networks on real digits, measure them every epoch, and report
	$(BIN)/python train.py -m experiment=quickstart batch_size=20,200
	$(BIN)/python analyze.py runs=runs/quickstart sizes.plane=48 sizes.layers=500 sizes.curve=10 sizes.attacked=100 sizes.group=30 sizes.embedded=500 sizes.audited=40

test: .venv/.dev  ## the whole suite: no network, under 10 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.bench  ## side-by-side timings, kept in docs/benchmarks.md
	for part in data regions measures attacks distance sweep analysis many_runs worlds causal_worlds plan; do $(BIN)/python -m benchmarks.$$part || exit 1; done

soak: .venv/.dev  ## the long tests: kills at random moments
	$(BIN)/pytest -m slow

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.base: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

.venv/.dev: .venv/.base
	$(INSTALL) -e '.[dev,slurm,ray,dashboard]'
	@touch $@

.venv/.bench: .venv/.dev
	$(INSTALL) -e '.[bench]'
	@touch $@

clean:
	rm -rf .venv

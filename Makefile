# Every target makes the virtual environment and installs what it needs when it is absent.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test test-slow test-flink test-slurm test-stores chaos fuzz soak lint bench bench-flink bench-gpu toy clean
.DEFAULT_GOAL := test

$(READY): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)  ## the whole chain on a small generated world, offline: build/demo/summary.json
	$(BIN)/python -m tests.world.demo

# One process more than there are processors, since some tests wait; not more than memory is for.
PROCESSES = $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() + 1, 5))")

# The others run with make test-slow; make test MARKED= runs all at once.
MARKED = -m "not slow"

test: $(READY)  ## all tests that need neither Java nor a GPU, but for the slow ones
	$(BIN)/python -m pytest $(MARKED) --numprocesses $(PROCESSES) --dist loadfile

test-slow: $(READY)  ## the demo, notebooks, benchmarks and a chain on real data, each in small
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

test-flink: $(READY)  ## every job and one death per job on a real Flink cluster (Java 17 JDK, Maven)
	WORLDCLIP_TEST_FLINK=1 $(BIN)/python -m pytest tests/engines/test_flink.py tests/engines/test_faults.py

test-slurm: $(READY)  ## training through time limit, preemption and loss of a node on a real Slurm (root; slurm-wlm, munge)
	WORLDCLIP_TEST_SLURM=1 $(BIN)/python -m pytest tests/engines/test_slurm.py

GO ?= $(or $(shell command -v go),/usr/local/go/bin/go)
FAKE_GCS := build/fake-gcs-server-v1.56.1/fake-gcs-server

$(FAKE_GCS):
	GOBIN=$(abspath $(dir $@)) $(GO) install github.com/fsouza/fake-gcs-server@v1.56.1

test-stores: $(READY) $(FAKE_GCS)  ## stages of 2,000 parts on servers of S3 and GCS: deaths, refusals, cut uploads, the chain (Go)
	WORLDCLIP_TEST_STORES=$(FAKE_GCS) $(BIN)/python -m pytest tests/engines/test_stores.py

chaos: $(READY)  ## ten random deaths of each of four jobs on Flink: build/chaos.json
	$(BIN)/python -m tests.engines.chaos --seed 1 --times 10

fuzz: $(READY)  ## property tests with new examples, ten times as many
	HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest -m hypothesis --numprocesses $(PROCESSES) --dist loadfile

soak: $(READY)  ## the chain again and again for half an hour, its commands killed at random moments: build/soak.json
	$(BIN)/python -m tests.e2e.soak --seed 1 --minutes 30

lint: $(READY)  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## speed and memory, with a baseline in the same run: build/bench.json
	$(BIN)/python -m tests.benchmarks

bench-flink: $(READY)  ## match with one TaskManager of Flink and with two: build/bench-flink.json (Java 17 JDK, Maven)
	$(BIN)/python -m tests.benchmarks.flink

bench-gpu: $(READY)  ## the trainer against open_clip's own script, on a GPU: build/bench-gpu.json
	$(BIN)/python -m tests.benchmarks.gpu

toy: $(READY)  ## balanced against unbalanced, 5 seeds: build/toy/table.json
	$(BIN)/python -m tests.world.toy

clean:
	rm -rf build

# Everything a contributor types. Each target does its own set-up: the first one builds .venv, the rest find it built.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONF := conf/complete-journey.yaml
# PyPI's torch for Linux brings several GB of CUDA. Without a GPU, PyTorch's CPU builds are looked at too if that index
# answers; 2.13.0+cpu then counts as newer than PyPI's 2.13.0. Any other build: make quickstart TORCH_INDEX=URL
TORCH_CPU := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null || { \
	$(PYTHON) -c 'from urllib.request import urlopen; urlopen("$(TORCH_CPU)/torch/", timeout=10)' 2>/dev/null && echo $(TORCH_CPU); })

.PHONY: help quickstart test faults lint docs docs-serve fresh wheel format bench bench-quality bench-ablation bench-train bench-preprocess bench-serve bench-gpu bench-plan bench-tune bench-retrieve bench-start testbed-up testbed-down clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

# An attempt where python3-venv lacked leaves an environment without pip: it is made anew. torch goes first and alone, so
# that no other requirement can pull a different build of it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mind needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(BIN)/python -m pip --version &>/dev/null || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes the first time, PyTorch is large"
	$(BIN)/python -m pip install --quiet $(TORCH_INDEX:%=--extra-index-url %) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,quickstart,serve,onnx]'
	@touch $@

# One shell, so that whatever happens the Ray of `mind up` is ended too
quickstart: $(INSTALLED) ## Complete Journey, end to end: preprocess, train, evaluate, recommend (about 3 min on 2 cores)
	@trap '$(BIN)/mind down $(CONF)' EXIT; set -x; \
	$(BIN)/mind up $(CONF); \
	$(BIN)/mind preprocess $(CONF); \
	$(BIN)/mind train $(CONF) --preset youtube_dnn; \
	$(BIN)/mind train $(CONF); \
	$(BIN)/mind evaluate $(CONF) --against youtube_dnn; \
	$(BIN)/mind recommend $(CONF) --user 1 --user 7 --user 13 --top 12
	@echo "The runs, side by side: $(BIN)/mind ui $(CONF) prints an address to open"

# A process for each core, four at most: each has a Ray of its own, of 2 GB. A file stays in one process, as its tests
# share what they have made; the order is that of tests/conftest.py.
IN_PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: lint ## Lint, then the unit and Ray tests on all cores (not slow, cluster or gpu)
	$(BIN)/pytest $(IN_PARALLEL)

faults: $(INSTALLED) ## Kill every stage at every moment, throw anything at the readers; writes docs/reliability.md (some hours, alone)
	$(BIN)/pytest tests -m faults
	$(BIN)/python -m tests.faults.table build/faults

lint: $(INSTALLED) ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

DOCS := $(VENV)/.docs
$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(DOCS) ## The documentation's site into site/: strict, every link and anchor checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(DOCS) ## The same on http://127.0.0.1:8000, built anew as you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

# In a folder of its own, with nothing of this environment: no other target comes first.
FRESH ?= $(or $(TMPDIR),/tmp)/mind-fresh
fresh: ## A machine with only Python, git and make, in a folder: README and tutorials as typed (root, debootstrap; some hours)
	tests/docs/fresh_root.sh $(FRESH)

wheel: $(INSTALLED) ## The wheel and the sdist into dist/
	$(BIN)/python -m build --outdir dist

bench: $(INSTALLED) ## Do the trained interests find the planted ones? (about 3 minutes)
	$(BIN)/python -m benchmarks.interests

bench-quality: $(INSTALLED) ## How good the lists are, beside rules and other people's models (many hours; killed, it goes on)
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-ablation: $(INSTALLED) ## What each setting of the recipe gains, in it and alone (about 2 hours; killed, it goes on)
	$(BIN)/python -m benchmarks.ablation $(ARGS)

bench-train: $(INSTALLED) ## What training costs, beside torch-rechub and a dense baseline (about 1.5 hours, alone)
	$(BIN)/python -m benchmarks.train

bench-preprocess: $(INSTALLED) ## What preprocessing costs, beside a plain Polars script (about 15 minutes, alone)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.preprocess

bench-serve: $(INSTALLED) ## What `mind serve` answers, beside `mlflow models serve` (about 5 minutes, alone)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/mind preprocess conf/beauty.yaml
	$(BIN)/mind train conf/beauty.yaml --set train.epochs=1
	$(BIN)/python -m benchmarks.serve conf/beauty.yaml

bench-gpu: $(INSTALLED) ## What a step costs on a GPU, against its roofline (at most 10 minutes; where there is one)
	$(BIN)/python benchmarks/gpu.py

bench-plan: $(INSTALLED) ## Is `mind plan` right? Predicted beside measured at three sizes (about 10 minutes, alone)
	$(BIN)/python -m benchmarks.plan

bench-tune: $(INSTALLED) ## What a tuning campaign costs beside its trainings; ASHA against the grid (about 1.5 hours, alone)
	$(BIN)/python -m benchmarks.tune

bench-retrieve: $(INSTALLED) ## Exact lists, one user against 10 M items, FAISS beside it, an index (about 30 minutes, alone)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[index]'
	$(BIN)/python -m benchmarks.retrieve

bench-start: $(INSTALLED) ## What is waited for before anything is computed, with and without `mind up` (about 20 minutes, alone)
	$(BIN)/python -m benchmarks.start $(ARGS)

testbed-up: $(INSTALLED) ## A Ray cluster of several nodes on this machine, with S3 and MLflow (docs/testbed.md)
	$(BIN)/python -m tests.cluster.testbed up

testbed-down: $(INSTALLED) ## Take it down; nothing of it stays
	$(BIN)/python -m tests.cluster.testbed down

format: $(INSTALLED) ## Let ruff sort imports and lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and the caches (not mind_home)
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

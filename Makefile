# One verb a target. The first to need it makes .venv, with the exact versions of constraints.txt.
VENV ?= .venv
BIN := $(VENV)/bin

# The newest Python that will do: on the path, below pyenv, or what there is.
PYENV = $${PYENV_ROOT:-$$(pyenv root 2>/dev/null || echo ~/.pyenv)}/versions
CANDIDATES = python3.14 python3.13 python3.12 $$(ls -d $(PYENV)/3.1[234].*[0-9]/bin/python | sort -rV) \
	python3 python3.11 $(PYENV)/3.11.*/bin/python
# Links are followed: the Python of an active environment is the one that it was made with.
SUITABLE = import ensurepip, os, sys, venv; (3, 11) <= sys.version_info < (3, 15) or sys.exit(1); \
	print(os.path.realpath(sys.executable))
ifeq ($(PYTHON),)
PYTHON := $(shell for p in $(CANDIDATES); do $$p -c '$(SUITABLE)' && break; done 2>/dev/null)
endif
# Named by the version: another Python makes another environment.
READY := $(VENV)/ready-$(lastword $(shell $(PYTHON) --version))

.PHONY: demo test torture lint format bench bench-target results clean setup

demo: $(READY)
	$(BIN)/python experiments/train_sweep.py --workdir=runs/demo --preset=digits
	$(BIN)/python experiments/report.py --workdir=runs/demo

test: $(READY)
	$(BIN)/pytest

# About an hour on two cores; the counts are in runs/torture.txt.
torture: $(READY)
	mkdir -p runs && rm -f runs/torture.txt
	TORTURE=$(CURDIR)/runs/torture.txt $(BIN)/pytest tests/faults; status=$$?; cat runs/torture.txt; exit $$status

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Half an hour, with BENCH=--quick five minutes. PyTorch has an environment of its own.
bench: $(READY) .venv-torch/ready
	TORCH_PYTHON=.venv-torch/bin/python $(BIN)/python benchmarks/report.py $(BENCH)

.venv-torch/ready:
	$(or $(TORCH_BASE),$(shell command -v python3.11),$(PYTHON)) -m venv --clear .venv-torch
	.venv-torch/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy absl-py matplotlib scikit-learn
	touch $@

# Of the packages for GPUs the compiler alone, without NVIDIA's libraries.
bench-target: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt "jax[cuda13-local,tpu]"
	$(BIN)/python benchmarks/target.py

results: $(READY)
	$(BIN)/python experiments/results.py

setup: $(READY)

clean:
	rm -rf .venv* build *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache

$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer with venv: make PYTHON=..." >&2; exit 1; }
	@echo "$(VENV): $(PYTHON), $$($(PYTHON) --version); PYTHON=... takes another"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

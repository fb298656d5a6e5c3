# `make` says what there is. Everything that is missing on this machine is installed by `make setup`.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check soak swap bench scale clean

PYTHON ?= python3
VENV := .venv/bin
# What pytest gets: make test ARGS="-k revert -x"
ARGS ?=
# The tests run in two lanes, one for each engine that they drive. LANES=0: one after another, as --pdb needs it.
LANES ?= 2

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## engine, virtual environment, base images, the sample app's wheels
	@$(PYTHON) -m setup

demo: setup ## what imm does, on this machine, in a minute
	@$(VENV)/python -m demo

test: setup ## lint, types and all tests, on a real engine
	@$(PYTHON) -m setup sshd
	@$(MAKE) --no-print-directory check

check: ## the same without looking whether the machine is ready
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/python -m pytest -v --durations=40 -n $(LANES) --dist loadscope --no-loadscope-reorder $(ARGS)

# Each file in which some cases run with IMM_SOAK=1 alone.
SOAKED := tests/test_killed.py tests/test_lock.py tests/remote/test_killed_proxy.py \
	tests/remote/test_killed_at_first.py tests/remote/test_faults.py tests/remote/test_over.py \
	tests/remote/test_full_and_lost.py tests/remote/test_many.py tests/remote/test_bare_host.py \
	tests/remote/test_broken_state.py tests/proxies tests/test_unbroken.py tests/test_sequences.py tests/test_soak.py

soak: setup ## every kill and fault, 1,000 random sequences, 500 swaps under load, both proxies: many hours
	IMM_SOAK=1 $(VENV)/python -m pytest -v $(SOAKED) $(ARGS)

swap: setup ## containers swapped under load, behind both kinds of proxy: make swap ARGS="--swaps 100"
	$(VENV)/python -m bench.swap $(ARGS)

bench: setup ## how fast imm is, each figure beside its floor: make bench ARGS="--only status,up --quick"
	@$(PYTHON) -m setup sshd wrk
	@$(VENV)/python -m bench.speed $(ARGS)

scale: setup ## how imm grows with 1,000 records and 100 apps: make scale ARGS="--apps 10 --times 3"
	@$(VENV)/python -m bench.scale $(ARGS)

clean: ## away with what setup made in this folder; its cache and the engine's images stay
	rm -rf .venv sample_app/wheels build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

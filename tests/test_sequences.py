"""Random sequences of commands and faults, each followed by a look at all that must be true.

The default run is short and always the same. `make soak` runs IMM_SEQUENCES of them (1,000) of IMM_MOVES moves (12)
each, from a seed that it prints; IMM_SEED=N begins with that one again.
"""

from __future__ import annotations

import itertools
import os
import random
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

pytest.register_assert_rewrite("tests.sequences")

from tests.conftest import Machine  # noqa: E402
from tests.host import Host  # noqa: E402
from tests.sequences import Sequence  # noqa: E402

SOAK = os.environ.get("IMM_SOAK") == "1"
SEQUENCES = int(os.environ.get("IMM_SEQUENCES", "1000" if SOAK else "2"))
SEED = int(os.environ.get("IMM_SEED", str(random.randrange(10**6)) if SOAK else "11"))
MOVES = int(os.environ.get("IMM_MOVES", "12")) if SOAK else 5
# A failure is told with the seed of its batch: that many sequences lead to it again, not a thousand.
BATCH = 12
# For a machine that has only so long: no batch begins after that many seconds.
SECONDS = float(os.environ.get("IMM_SECONDS", "inf"))


@pytest.mark.timeout(0)
def test_whatever_is_done_and_whatever_fails_the_app_is_right_after_the_next_command(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
):
    """One live release that answers with its version and settings, nothing left over, nothing lost."""
    began = time.monotonic()

    def open_host() -> Host:
        return Host(tmp_path_factory.mktemp("sequence"), machine.base, machine.proxy)

    def proxy() -> None:
        back = Host(tmp_path_factory.mktemp("proxy"), machine.base, machine.proxy)
        back.imm(back.project().write(), "proxy", "up", "--kind", "nginx")
        back.close()

    proxy()
    try:
        for batch in itertools.count(SEED):
            if Sequence.done >= SEQUENCES or time.monotonic() - began > SECONDS:
                break
            print(f"IMM_SEED={batch}, after {Sequence.done} sequences and {Sequence.moves} moves", flush=True)
            how = settings(
                max_examples=min(BATCH, SEQUENCES - Sequence.done),
                stateful_step_count=MOVES,
                database=None,
                derandomize=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                deadline=None,
            )
            life = type("Life", (Sequence,), {"open_host": staticmethod(open_host)})
            run_state_machine_as_test(seed(batch)(life), settings=how, _min_steps=MOVES)
    finally:
        proxy()
    print(f"{Sequence.done} sequences, {Sequence.moves} moves in {time.monotonic() - began:.0f} s")

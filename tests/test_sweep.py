"""What a sweep finds missing, as values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from immutable_local.sweep import missing_record
from tests.values import observed, record, release

EARLIER, SINCE, LATER = (f"2026-01-01T00:0{minute}:00.000Z" for minute in (0, 1, 2))


def missing(**told: Any) -> str | None:
    """What is missing where release 1 is live since SINCE, and this was recorded of it."""
    found = observed(release())
    assert found.live is not None
    live = replace(found.live, since=SINCE)
    return missing_record(replace(found, live=live, records=[record("went_live", 1, **told)]))


@pytest.mark.parametrize("at", [EARLIER, LATER])
def test_a_flip_that_was_recorded_is_known_whatever_the_hosts_clock_said_then(at: str):
    """It may have been put back between the flip and the record."""
    assert missing(at=at, since=SINCE) is None


@pytest.mark.parametrize("at", [EARLIER, LATER])
def test_a_flip_to_the_release_that_was_live_already_is_missed_until_it_is_recorded(at: str):
    """With another secret, say. What was recorded is the earlier one."""
    assert missing(at=at, since=EARLIER) == "went_live"


def test_what_an_older_imm_recorded_goes_by_its_time():
    assert missing(at=LATER) is None
    assert missing(at=EARLIER) == "went_live"

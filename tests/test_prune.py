"""Which releases are too old to be kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.prune import too_old
from tests.values import record

EVENTS = st.tuples(st.sampled_from(["went_live", "reverted", "failed", "sealed"]), st.integers(1, 8))


@pytest.mark.parametrize(
    ("lived", "sealed", "live", "keep", "removed"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 4, 2, [1]),
        ([1, 2, 3, 4], [1, 2, 3, 4], 4, 5, []),
        ([1, 2, 3, 1], [1, 2, 3], 1, 1, [2]),
        ([1, 2], [1, 2, 3], 2, 5, [3]),
        ([1, 2, 3], [1, 3], 3, 1, []),
        ([1, 2, 3], [1, 2, 3], None, 1, [1, 2]),
        ([], [], None, 1, []),
    ],
    ids=["oldest", "fewer", "by when it was live", "never live", "gone already", "after down", "nothing"],
)
def test_the_releases_that_were_live_most_recently_are_kept(
    lived: list[int], sealed: list[int], live: int | None, keep: int, removed: list[int]
):
    assert too_old([record("went_live", number) for number in lived], sealed, live, keep) == removed


@given(st.lists(EVENTS), st.sets(st.integers(1, 8)), st.none() | st.integers(1, 8), st.integers(1, 5))
def test_never_the_live_one_and_never_more_than_keep_besides(
    events: list[tuple[str, int]], sealed: set[int], live: int | None, keep: int
):
    records = [record(*each) for each in events]
    removed = too_old(records, sorted(sealed), live, keep)
    stay = sealed - set(removed)
    assert live not in removed
    assert set(removed) <= sealed
    assert len(stay - {live}) <= keep
    was_live = {number for event, number in events if event in ("went_live", "reverted")}
    assert len(stay - {live}) == min(keep, len(was_live & sealed - {live}))

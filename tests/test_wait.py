"""Waiting for a condition."""

from __future__ import annotations

from immutable_local.wait import until


def test_it_is_asked_until_the_answer_is_true():
    """Whatever is false, not None alone, is no answer yet."""
    answers = iter([None, False, 0, "", "there"])
    assert until(lambda: next(answers), 60.0, pause=0.0) == "there"


def test_what_never_is_true_is_none_in_the_end():
    assert until(lambda: False, 0.0, pause=0.0) is None

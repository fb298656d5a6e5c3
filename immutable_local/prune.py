"""Old releases of one app: their images go, the ledger stays. Never a volume, never what is live."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from immutable_local import image
from immutable_local.engine import Engine
from immutable_local.release import WAS_LIVE
from immutable_local.sidecar.session import Session


@dataclass(frozen=True)
class Removed:
    """What `imm prune` removed: releases by number, and how much of the builder's cache."""

    releases: list[int]
    cache_records: int
    cache_bytes: int


def too_old(
    records: Sequence[Mapping[str, Any]], sealed: Sequence[int], live: int | None, keep: int
) -> list[int]:
    """The sealed releases that go: all but the live one and the `keep` that were live most recently. Pure."""
    latest: dict[int, int] = {}
    for position, record in enumerate(records):
        if record["event"] in WAS_LIVE:
            latest[record["release"]] = position
    recent = sorted(
        (number for number in latest if number != live and number in sealed), key=lambda n: -latest[n]
    )
    kept = {live, *recent[:keep]}
    return sorted(number for number in sealed if number not in kept)


def prune(
    engine: Engine,
    session: Session,
    app: str,
    sealed: Collection[int],
    left: Collection[str],
    records: Sequence[Mapping[str, Any]],
    live: int | None,
    keep: int,
) -> list[int]:
    """Remove the images of releases too old, and builds that became no release; returns the numbers.

    Raises SessionLost when the app's lock was lost: by now another release may be one that is kept.
    """
    removed = []
    for number in too_old(records, list(sealed), live, keep):
        session.ask("still_locked", name=f"app-{app}")
        if engine.remove_image(f"{image.repository(app)}:{number}"):
            removed.append(number)
    # What a release that just went was built from may have become such a leftover.
    for each in image.of_app(engine, app)[1] if removed else left:
        session.ask("still_locked", name=f"app-{app}")
        engine.remove_image(each)
    return removed

"""The builder's cache: what only builds of one app made and used whose releases are gone.

A record of BuildKit's says what it is, when it was made and last used, and not by whom. When an app was built
is noted on the engine's host, by the same clock: what was made and last used meanwhile is its own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from immutable_local import labels as label
from immutable_local.engine import CacheRecord, Engine
from immutable_local.events import Teller
from immutable_local.release import Release, unseal
from immutable_local.sidecar.session import Session

# BuildKit lets go of a build's records, and notes that as their last use, when the build has ended for its
# client: up to 8 ms later, on an idle machine. An app's next build comes later than this.
SETTLING = timedelta(milliseconds=200)


# How newer engines begin a step's description: another line above it counts it anew.
NUMBERED = re.compile(r"^\[([^]]*?) ?\d+/\d+\] ")


@dataclass(frozen=True)
class Build:
    """One build of an app. `made` is its image's id and what that was built from; nothing when it failed."""

    began: datetime
    ended: datetime
    made: frozenset[str]

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Build:
        ended = datetime.fromisoformat(told["at"])
        return cls(ended - timedelta(seconds=told["seconds"]), ended, frozenset(told["made"]))


class Times:
    """The times at which some builds were made, `settling` longer."""

    def __init__(self, builds: Iterable[Build], settling: timedelta = timedelta()) -> None:
        ordered = sorted((each.began, each.ended + settling) for each in builds)
        self._begun = [began for began, _ in ordered]
        self._until = list(accumulate((ended for _, ended in ordered), max))

    def __contains__(self, moment: datetime) -> bool:
        begun = bisect_right(self._begun, moment)
        return begun > 0 and moment <= self._until[begun - 1]

    def build_of(self, moment: datetime) -> datetime:
        """When the last build began before that moment."""
        return self._begun[bisect_right(self._begun, moment) - 1]


def left_over(
    records: Sequence[CacheRecord], mine: Sequence[Build], others: Sequence[Build], kept: Collection[str]
) -> list[CacheRecord]:
    """The records that go. `mine` are the app's builds, `others` other apps'; `kept` marks what stays. Pure.

    A step that a build takes from the cache, in a stage of which the image takes files alone, isn't noted as
    used. So of each step the newest result of a build that went well stays, however long ago that was: what
    is kept may have been built with it, and the next build may begin there.
    """
    still = [each for each in mine if each.made & set(kept)]
    gone = [each for each in mine if not each.made & set(kept)]
    made, used = Times(gone), Times(gone, SETTLING)
    made_for_others, used_by_others = Times([*still, *others]), Times([*still, *others], SETTLING)
    well = Times(each for each in mine if each.made)
    results = [each for each in records if each.kind == "regular"]
    newest: dict[str, datetime] = {}
    for each in results:
        if each.made in well:
            newest[step_of(each)] = max(newest.get(step_of(each), each.made), each.made)

    def is_newest(record: CacheRecord) -> bool:
        return record.made in well and record.made >= well.build_of(newest[step_of(record)])

    return [
        each
        for each in results
        if not each.in_use
        and not each.shared
        and each.used is not None
        and each.made in made
        and each.used in used
        and each.made not in made_for_others
        and each.used not in used_by_others
        and not is_newest(each)
    ]


def step_of(record: CacheRecord) -> str:
    """The command or the copy, and its stage where it has a name; Docker 20.10 says of each copy the same."""
    return NUMBERED.sub(r"[\1] ", record.description)


def marks(sealed: Mapping[int, tuple[str, Mapping[str, str]]], live: Release | None) -> set[str]:
    """What builds made that is still kept: releases' images before they were sealed, and their sources."""
    kept = [unseal(labels, image) for image, labels in sealed.values()] + ([live] if live else [])
    sources = {labels[label.SOURCE] for _, labels in sealed.values() if label.SOURCE in labels}
    return sources | {each.pins[""].id for each in kept if "" in each.pins}


def note(session: Session | None, app: str, seconds: float, made: Iterable[str]) -> None:
    """Note a build that ends now, `seconds` after it began; what isn't noted stays in the cache."""
    if session is not None:
        session.tell("build_note", app=app, seconds=round(seconds, 3), made=sorted(made))


def prune(engine: Engine, session: Session, app: str, kept: Collection[str], tell: Teller) -> tuple[int, int]:
    """Remove what is left over; returns how many records went, and their bytes."""
    told = {
        name: [Build.from_json(each) for each in builds] for name, builds in session.ask("builds").items()
    }
    mine = told.pop(app, [])
    if not mine:
        return 0, 0
    others = [each for builds in told.values() for each in builds]
    records = engine.build_cache()
    goes = left_over(records, mine, others, kept)
    # Of builds before the oldest record there is nothing to be told any more.
    oldest = min((each.made for each in records), default=max(each.ended for each in mine))
    session.tell("builds_forget", app=app, before=oldest.isoformat())
    if goes and engine.images_in_containerd:
        # Its builder then finds nothing of its cache again, whosever it is (measured on Docker 28.5).
        tell.note(
            f"{len(goes)} build cache records of {app} are no longer needed, and stay: with containerd's"
            " image store the builder forgets all of its cache when some is removed (docker builder prune)"
        )
        return 0, 0
    return engine.remove_build_cache(goes)

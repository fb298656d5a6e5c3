"""The builder's cache of builds that are gone goes, and nothing else of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immutable_local.cache import SETTLING, Build, left_over, step_of
from immutable_local.engine import CacheRecord, connect
from immutable_local.image import buildkit_program
from immutable_local.sidecar.hands import builds
from tests.host import Host, Project

DAY = datetime(2026, 11, 21, tzinfo=UTC)
STEPS = st.sampled_from(["COPY .", "[web 2/3] RUN make", "[web 3/4] RUN make", "[db 2/3] RUN make"])
DOCKERFILE = """\
FROM {base} AS builder
WORKDIR /build
COPY source /build/
RUN cat source > made; : {name}
FROM {base}
WORKDIR /app
COPY --from=builder /build/made /app/
COPY server.py VERSION /app/
RUN cat VERSION > copied; : {name}
USER 1000:1000
CMD ["python3", "server.py"]
"""


def at(seconds: float) -> datetime:
    return DAY + timedelta(seconds=seconds)


def build(began: float, ended: float, *made: str) -> Build:
    return Build(at(began), at(ended), frozenset(made))


def record(description: str, made: float, used: float | None = None, **more: Any) -> CacheRecord:
    """Made and last used at these seconds of the day."""
    told = {"kind": "regular", "in_use": False, "shared": False, "size": 1, **more}
    last = at(made if used is None else used)
    return CacheRecord(id=f"{description}-{made}", description=description, made=at(made), used=last, **told)


# Release 1 and what failed are gone, 2 is kept.
BUILDS = [build(10, 20, "image-1"), build(30, 40), build(50, 60, "image-2")]
NEWEST = record("COPY .", 55)


def goes(*records: CacheRecord, others: Sequence[Build] = ()) -> list[str]:
    return [each.id for each in left_over([*records, NEWEST], BUILDS, others, {"image-2"})]


@pytest.mark.parametrize(
    ("made", "used"),
    [(15, 15), (15, 35), (35, 35), (10, 20), (15, 20.1)],
    ids=["a release that is gone", "and a failure", "a failure", "at the edges", "let go just after"],
)
def test_what_only_builds_made_and_used_that_are_gone_goes(made: float, used: float):
    assert goes(record("COPY .", made, used)) == [f"COPY .-{made}"]


@pytest.mark.parametrize(
    ("made", "used", "more"),
    [
        (55, 55, {}),
        (15, 55, {}),
        (5, 15, {}),
        (15, 25, {}),
        (15, 100, {}),
        (15, 20.5, {}),
        (20.1, 20.1, {}),
        (15, 15, {"in_use": True}),
        (15, 15, {"shared": True}),
        (15, 15, {"kind": "exec.cachemount"}),
        (15, 15, {"kind": "source.local"}),
        (15, 15, {"kind": "internal"}),
        (15, 15, {"kind": "frontend"}),
    ],
)
def test_what_anything_else_made_or_used_stays(made: float, used: float, more: dict[str, Any]):
    """What is kept, and whoever builds at other times: somebody by hand, or a build that nobody noted."""
    assert goes(record("COPY .", made, used, **more)) == []


def test_what_was_never_let_go_of_stays():
    never = CacheRecord("x", "regular", "COPY .", False, False, 1, at(15), None)
    assert goes(never) == []


@pytest.mark.parametrize("other", [(14, 16), (18, 19), (0, 100)])
def test_what_another_app_may_have_made_or_used_at_the_same_time_stays(other: tuple[float, float]):
    assert goes(record("COPY .", 15, 19), others=[build(*other, "image-of-another")]) == []
    assert goes(record("COPY .", 12, 13), others=[build(14, 16)]) == ["COPY .-12"]


def test_the_newest_result_of_each_step_stays_however_long_ago_it_was_made():
    """Taken from the cache for a stage that isn't the image's own, it isn't noted as used."""
    older, newer, beside = record("RUN make", 11), record("RUN make", 15), record("RUN make", 16)
    assert goes(older, newer, beside) == []
    assert goes(older, record("RUN make", 52)) == ["RUN make-11"]


def test_what_only_a_failed_build_made_of_a_step_is_not_its_newest_result():
    assert goes(record("RUN make", 15), record("RUN make", 35)) == ["RUN make-35"]
    assert goes(record("RUN test", 35)) == ["RUN test-35"]


def test_a_step_is_known_again_when_a_line_comes_before_it_and_is_another_in_another_stage():
    old = record("[web 2/3] RUN make", 15)
    assert goes(old, record("[web 3/4] RUN make", 52)) == [old.id]
    assert goes(old, record("[db 3/4] RUN make", 52)) == []
    assert goes(record("[2/3] COPY 1/2 .", 15), record("[2/4] COPY 1/3 .", 52)) == []
    assert goes(record("[2/3] COPY 1/2 .", 15), record("[3/4] COPY 1/2 .", 52)) == ["[2/3] COPY 1/2 .-15"]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Build], list[Build], set[str], list[CacheRecord]]:
    """Builds of an app, of others, which of them are kept, and what the builder has."""
    spans = st.tuples(st.integers(0, 100), st.integers(0, 10), st.sampled_from(["", "1", "2", "3"]))
    every = [
        [build(begin, begin + long, *([made] if made else [])) for begin, long, made in draw(st.lists(spans))]
        for _ in range(2)
    ]
    moments = st.tuples(STEPS, st.integers(0, 120), st.integers(0, 20), st.booleans(), st.booleans())
    records = [
        record(step, made, made + later, shared=shared, in_use=in_use)
        for step, made, later, shared, in_use in draw(st.lists(moments, max_size=12))
    ]
    return every[0], every[1], draw(st.sets(st.sampled_from(["1", "2", "3"]))), records


@given(histories())
def test_nothing_goes_that_was_not_made_and_used_in_a_build_that_is_gone(
    history: tuple[list[Build], list[Build], set[str], list[CacheRecord]],
):
    mine, others, kept, records = history
    gone = [each for each in mine if not each.made & kept]
    stay = [*others, *(each for each in mine if each.made & kept)]
    for each in left_over(records, mine, others, kept):
        assert not each.shared and not each.in_use and each.used is not None
        assert any(one.began <= each.made <= one.ended for one in gone)
        assert any(one.began <= each.used <= one.ended + SETTLING for one in gone)
        assert not any(one.began <= moment <= one.ended for one in stay for moment in (each.made, each.used))


@given(histories())
def test_once_removed_nothing_more_goes_and_of_each_step_something_is_left(
    history: tuple[list[Build], list[Build], set[str], list[CacheRecord]],
):
    mine, others, kept, records = history
    went = left_over(records, mine, others, kept)
    left = [each for each in records if each not in went]
    assert left_over(left, mine, others, kept) == []
    well = [each for each in mine if each.made]
    made_well = [each for each in records if any(one.began <= each.made <= one.ended for one in well)]
    assert {step_of(each) for each in made_well} <= {step_of(each) for each in left}


def test_a_line_that_lost_power_cut_short_says_nothing_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(builds, "STATE", tmp_path)
    assert builds.builds() == {}
    builds.build_note("shop", 1.5, ["image-1"])
    with (tmp_path / "builds" / "shop.jsonl").open("a") as file:
        file.write('null\n{}\n{"at": "2026-')
    builds.build_note("shop", 2.5, [])
    assert [each["seconds"] for each in builds.builds()["shop"]] == [1.5, 2.5]


# On the engine


def by_hand(host: Host, folder: Path, content: str) -> set[str]:
    """Somebody's own build of steps like the app's, whose image is gone; returns its records."""
    program = buildkit_program()
    assert program is not None, "nothing here builds with BuildKit, so there is no cache to prune"
    folder.mkdir()
    (folder / "source").write_text(content)
    (folder / "Dockerfile").write_text(f"FROM {host.base}\nCOPY source /\nRUN cat source > /made\n")
    before = host.cached()
    command = [program, "build", "--quiet", "--tag", f"{content}:mine", str(folder)]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=60, check=True)
    host.engine.remove_image(f"{content}:mine")
    made = regular(host) - before
    assert len(made) >= 2
    return made


def regular(host: Host, step: str = "") -> set[str]:
    """The records of the results of steps, by id."""
    every = host.engine.df()["BuildCache"] or []
    return {each["ID"] for each in every if each["Type"] == "regular" and step in each["Description"]}


def test_the_cache_of_releases_and_failures_that_are_gone_goes_and_nothing_else(
    host: Host, app: Project, tmp_path: Path
):
    """What somebody built by hand stays, and a stage's step that the live release took from the cache."""
    if connect().images_in_containerd:
        pytest.skip("with containerd's image store the builder's cache is left alone")
    name = app.name
    (app.folder / "source").write_text(name)
    dockerfile = DOCKERFILE.format(base=host.base, name=name)
    app.dockerfile(dockerfile).set(release={"keep": 1})
    hands = by_hand(host, tmp_path / "before", f"{name}-before")
    for number in range(1, 5):
        host.imm(app.version(f"{name}-{number}"), "plan")
        assert host.up(app).result["release"] == number
        host.up(app)
    assert host.releases(app) == [3, 4]
    host.up(app.version(f"{name}-5").dockerfile(dockerfile + "RUN false\n"), expect=1)
    hands |= by_hand(host, tmp_path / "after", f"{name}-after")

    copied, made = f"copied; : {name}", f"made; : {name}"
    stage, last = regular(host, made), regular(host, copied)
    assert (len(stage), len(last)) == (1, 5)
    before = regular(host)
    told = host.imm(app, "prune").result
    assert told["removed"] == [] and told["cache"]["bytes"] > 0
    assert len(before - regular(host)) == told["cache"]["records"]
    left = {each["ID"]: each for each in host.engine.df()["BuildCache"]}
    assert sum(each in left for each in last) == 2, [left[each] for each in last if each in left]
    assert hands | stage <= host.cached()

    app.version(f"{name}-4").dockerfile(dockerfile.replace("> copied", ">> copied"))
    assert host.up(app).result["outcome"] == "live"
    assert regular(host, made) == stage, "the next build took it from the cache"
    # Release 3 went meanwhile, with what it alone copied and made.
    said = host.imm(app, "prune", text=True).stdout
    assert said.startswith("removed 2 build cache records, ") and said.endswith(" kB\n"), said
    assert host.imm(app, "prune", text=True).stdout == "nothing to remove\n"


def test_with_containerds_image_store_the_cache_is_left_alone(host: Host, app: Project):
    """Its builder would forget all of its cache, other people's too, when some of it is removed."""
    if not connect().images_in_containerd:
        pytest.skip("this engine keeps its images itself")
    (app.folder / "source").write_text(app.name)
    app.dockerfile(DOCKERFILE.format(base=host.base, name=app.name)).set(release={"keep": 1})
    for number in range(1, 4):
        host.up(app.version(f"{app.name}-{number}"))
    before = regular(host)
    pruned = host.imm(app, "prune")
    assert pruned.result["cache"] == {"records": 0, "bytes": 0}
    assert f"build cache records of {app.name} are no longer needed, and stay" in pruned.stderr
    assert regular(host) == before


def test_what_cannot_be_known_of_builds_is_told_and_fails_no_command(host: Host, app: Project):
    """A folder where the file with the app's builds should be."""
    host.execute("imm-sidecar", "mkdir", "-p", f"/imm/state/data/builds/{app.name}.jsonl")
    try:
        host.up(app)
        pruned = host.imm(app, "prune")
        assert pruned.result == {"app": app.name, "removed": [], "cache": {"records": 0, "bytes": 0}}
        assert "the builder's cache stays as it is" in pruned.stderr
    finally:
        host.execute("imm-sidecar", "rmdir", f"/imm/state/data/builds/{app.name}.jsonl")

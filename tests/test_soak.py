"""Hundreds of swaps under load, and all is where it was: run by `make soak`, IMM_SWAPS of them (500)."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from immutable_local.engine import connect
from immutable_local.wait import until
from tests.host import Host, Project
from tests.kills import check
from tests.load import Load

# Whole rounds of a new version, a new setting and the way back, so that what is kept is as it was.
SWAPS = 3 * -(-int(os.environ.get("IMM_SWAPS", "500")) // 3)
WARM_UP = 12
KEEP = 2
REST_SECONDS = 20.0
# The allocators of Python and nginx keep what they once had; a leak of one swap's worth would be more.
SLACK_BYTES = 6 * 1024 * 1024
STATE = """
import collections, json, os, pathlib, sys
app, counts = sys.argv[1], collections.Counter()
for root in (pathlib.Path("/imm/state/data"), pathlib.Path("/imm/proxy/data")):
    for folder, folders, names in os.walk(root):
        for name in names + folders:
            path = os.path.join(folder, name)
            kind = "ledger" if f"/ledger/{app}/" in path else "logs" if f"/logs/{app}/" in path else "other"
            counts[kind] += 1
print(json.dumps(counts))
"""


@dataclass(frozen=True)
class Rest:
    """What there is when nothing happens."""

    containers: int
    images: int
    networks: int
    volumes: int
    files: dict[str, int]
    processes: dict[str, int]
    open_files: dict[str, int]
    memory: dict[str, int]


def at_rest(host: Host, app: Project) -> Rest:
    engine = host.engine
    mine = {"label": f"imm.app={app.name}"}
    printed = host.printed("imm-sidecar", "python3", "-c", STATE, app.name)
    own = {name: processes(host, name) for name in ("imm-proxy", "imm-sidecar")}
    return Rest(
        containers=len(engine.containers(all=True, filters=mine)),
        images=len(engine.images(all=True, filters=mine)),
        networks=len(engine.networks(filters=mine)),
        volumes=len(engine.volumes(filters=mine)["Volumes"] or []),
        files=dict(Counter(json.loads(printed))),
        processes={name: len(each) for name, each in own.items()},
        open_files={name: sum(len(os.listdir(f"/proc/{p}/fd")) for p in each) for name, each in own.items()},
        memory={name: sum(resident(p) for p in each) for name, each in own.items()},
    )


def processes(host: Host, name: str) -> list[int]:
    """A container's processes, by their numbers on this machine."""
    told = host.engine.top(name)
    return [int(row[told["Titles"].index("PID")]) for row in told["Processes"]]


def resident(process: int) -> int:
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cache(host: Host) -> tuple[int, int]:
    """What the builder keeps of builds' steps: records, and their bytes."""
    records = [each for each in host.engine.df()["BuildCache"] or [] if each["Type"] == "regular"]
    return len(records), sum(each["Size"] for each in records)


def swap(host: Host, app: Project, number: int) -> None:
    """Another version, another setting, or back, by turns. No other run of this test built the same."""
    if number % 3 == 0:
        outcome = host.up(app.version(f"{app.name}-{number}", environment={"N": "0"}))
    elif number % 3 == 1:
        outcome = host.up(app.version(f"{app.name}-{number - 1}", environment={"N": str(number)}))
    else:
        outcome = host.revert(app)
    assert outcome.result["outcome"] == "live", outcome


@pytest.mark.skipif(os.environ.get("IMM_SOAK") != "1", reason="minutes of swaps: make soak runs it")
@pytest.mark.timeout(0)
def test_after_hundreds_of_swaps_under_load_everything_is_where_it_was(host: Host, app: Project):
    """No request lost, no object, file, process or open file more, and no memory that grew with the swaps."""
    app.set(release={"keep": KEEP})
    for number in range(WARM_UP):
        swap(host, app, number)
    host.imm(app, "prune")
    before, cached = at_rest(host, app), cache(host)
    began = time.monotonic()
    with Load(host, app) as load:
        for number in range(WARM_UP, WARM_UP + SWAPS):
            swap(host, app, number)
    seconds = time.monotonic() - began
    records = host.history(app)
    after: Any = until(lambda: same(before, at_rest(host, app)), REST_SECONDS, pause=1.0)
    after = after or at_rest(host, app)
    grown = cache(host)
    pruned = host.imm(app, "prune").result["cache"]
    left = cache(host)
    print(
        f"{SWAPS} swaps in {seconds:.0f} s, {load.sent} requests, {len(load.lost)} lost;\n"
        f"before {before}\nafter  {after}\n"
        f"build cache, records and bytes: before {cached}, after {grown}, pruned {pruned}, left {left}"
    )
    assert load.lost == [] and load.sent > SWAPS
    assert same(before, after), (before, after)
    if not connect().images_in_containerd:
        # Where the builder would forget all of its cache with some of it, imm leaves it alone.
        assert left[0] == cached[0], (cached, grown, left)
    flips = [each for each in records if each["event"] in ("went_live", "reverted")]
    assert len(flips) == WARM_UP + SWAPS
    assert [each["number"] for each in records] == list(range(1, len(records) + 1))
    check(host, app, flips[-1]["release"])


def same(before: Rest, after: Rest) -> Rest | None:
    """What is there after, when it is what was there before; the ledger grows, and kept logs to their bound."""
    counted = ("containers", "images", "networks", "volumes", "processes")
    equal = all(getattr(before, each) == getattr(after, each) for each in counted)
    files = before.files["other"] == after.files["other"] and after.files["logs"] <= 60
    # A worker of nginx keeps a connection or two to clients and instances for a moment.
    opened = all(after.open_files[name] <= count + 4 for name, count in before.open_files.items())
    memory = all(after.memory[name] <= count + SLACK_BYTES for name, count in before.memory.items())
    return after if equal and files and opened and memory else None

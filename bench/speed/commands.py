"""The commands beside their floors: how long a person waits."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.speed import by_hand
from bench.speed.by_hand import ByHand
from bench.speed.project import Project, program
from bench.speed.row import Bound, Row

# The app comes up this long after its process, so that it is waited for when it does.
BOOT = 'environment = {{ BOOT = "{seconds}" }}'
# How the app says it, in its log.
LISTENS = "listens since "
FILES = 10_000
FILE_BYTES = 12_000

Measure = Callable[[int], float]


def in_turns(times: int, floor: Measure, imm: Measure) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Floor and imm, one after the other, that often; what each took."""
    pairs = [(floor(number), imm(number)) for number in range(times)]
    return tuple(each[0] for each in pairs), tuple(each[1] for each in pairs)


def words_alone(word: str, times: int) -> Row:
    """`imm --help` and `imm --version`: nothing but Python and what they import."""

    def imm(number: int) -> float:
        began = time.perf_counter()
        subprocess.run([program(), word], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    floor, ours = in_turns(times, lambda _: by_hand.python(by_hand.PRINT), imm)
    bound = Bound(times=6, flat=0.12)
    return Row(word.strip("-"), f"imm {word}", ours, "Python that prints", floor, bound)


def status(project: Project, times: int) -> Row:
    floor, imm = in_turns(
        times, lambda _: by_hand.python(by_hand.PING), lambda _: project.imm("status").seconds
    )
    return Row("status", "imm status", imm, "Python that imports docker and pings", floor, Bound(times=2))


def nothing_to_do(project: Project, times: int) -> Row:
    def floor(_: int) -> float:
        return by_hand.build(project.folder)[1] + by_hand.python(by_hand.PING)

    floors, imm = in_turns(times, floor, lambda _: project.imm("up").seconds)
    does = "BuildKit's own build without a change, and Python that imports docker and pings"
    return Row("nothing", "imm up with nothing to do", imm, does, floors, Bound(times=1.2, plus=0.1))


def changed_file(project: Project, hand: ByHand, times: int) -> Row:
    """Each side builds a version of its own: one that the other had built would come out of the cache."""

    def floor(number: int) -> float:
        project.version(f"by hand {number}")
        return hand.up(project.folder)

    project.up("first")
    floor(-1)
    floors, imm = in_turns(times, floor, lambda number: project.up(f"imm {number}").seconds)
    does = "docker build, create, start, first good answer, remove"
    return Row("up", "imm up after one changed file", imm, does, floors, Bound(times=1.1, plus=0.3))


def revert(project: Project, hand: ByHand, times: int) -> Row:
    """To and fro between two releases; by hand the image of one of them is started."""
    releases = [int(project.up(f"revert {number}").told[-1]["release"]) for number in (1, 2)]
    image = f"imm.local/app/{project.name}:{releases[0]}"
    floors, imm = in_turns(
        times,
        lambda _: hand.back(image),
        lambda number: project.imm("revert", str(releases[number % 2])).seconds,
    )
    does = "create, start, first good answer"
    return Row("revert", "imm revert", imm, does, floors, Bound(times=1.15, plus=0.3))


def knows(project: Project, times: int) -> Row:
    """From the moment when the app listens, as it says itself, to the end of imm's health check."""
    late = []
    for number in range(times):
        # Not the same each time, else it may always be asked at the same distance from its begin.
        project.set(BOOT.format(seconds=0.3 + 0.037 * number))
        ran = project.up(f"knows {number}")
        lines = [str(each["line"]) for each in project.imm("logs").told]
        since = next(line.rpartition(" ")[2] for line in lines if line.startswith(LISTENS))
        late.append(ran.moment("check_health") - float(since))
    project.set()
    figure = "from when the app listens to imm knowing that it is healthy"
    return Row("knows", figure, tuple(late), bound=Bound(flat=0.05))


def large_context(project: Project, times: int) -> Row:
    """The build step of an `imm up`, which hashes its source beside, and the same build by hand."""
    data = project.folder / "data"
    for number in range(FILES):
        folder = data / str(number // 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.bin").write_bytes(os.urandom(FILE_BYTES))
    dockerfile = project.folder / "Dockerfile"
    text = dockerfile.read_text()
    dockerfile.write_text(text + "COPY data /data\n")
    change = partial(_change, data / "77" / "7777.bin")

    def floor(number: int) -> float:
        change(f"by hand {number}")
        return by_hand.build(project.folder)[1]

    def imm(number: int) -> float:
        change(f"imm {number}")
        return project.imm("up").step("build")

    imm(-1)
    floors, ours = in_turns(times, floor, imm)
    dockerfile.write_text(text)
    figure = f"imm up's build of {FILES:,} files, {FILES * FILE_BYTES // 1_000_000} MB, one of them changed"
    return Row("context", figure, ours, "BuildKit by hand", floors, Bound(times=1.1))


def _change(file: Path, text: str) -> None:
    file.write_bytes(text.encode() + os.urandom(FILE_BYTES - len(text)))

"""imm on this machine: version 2 is deployed under load, a broken version 3 isn't, and version 1 comes back.

Exit code 0 when no request failed and no data was lost.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from bench.load import Load, NotLoopback, Report, Settings
from bench.load.table import losses, table
from demo.imm import Deployment, Failed, Imm, Step
from demo.sample import Copy, Site

SHAPES = {
    "busy": 1,
    "idle": 20,
    "fresh": 1,
    "slow": 3,
    "streams": 3,
    "uploads": 3,
    "websockets": 3,
    "notes": 2,
}
"""Enough to hit every moment of a swap, and no more: the same two cores build the image."""


@dataclass
class Story:
    """The demo, told as it happens."""

    console: Console
    copy: Copy = field(default_factory=Copy)
    flips: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.imm = Imm(self.copy.file)

    def tell(self) -> bool:
        """Everything, from the first version to the last table: whether all was kept and answered."""
        began = time.monotonic()
        self.copy.make()
        live, highest = self._found()

        version = live or str(highest + 1)
        self.copy.set_version(version)
        title = f"Version {version} is live already" if live else f"Version {version} is deployed"
        first = self._up(title, expect=("live", "unchanged"))
        if first.release is None or first.url is None:
            raise Failed("imm up did not say which release is live, and where")
        site = Site(first.url)
        self._expect_version(site, version)
        mark = f"demo {time.time():.0f}"
        from_before = site.notes()
        for number in range(1, 4):
            site.keep(f"{mark}, before the load, {number} of 3")

        settings = Settings(
            slow=2.0, stream_events=20, stream_interval=0.1, upload_pieces=20, socket_life=3.0, note=mark
        )
        highest = max(highest, first.release)
        with Load(site.address, host=site.host, shapes=SHAPES, seconds=240, settings=settings) as load:
            self._say("Steady load from now on: " + ", ".join(f"{n} {shape}" for shape, n in SHAPES.items()))

            second = str(highest + 1)
            self.copy.set_version(second)
            self._up(f"Version {second} is deployed under that load", expect=("live",), flips_to=second)
            self._expect_version(site, second)
            self._so_far(load)

            third = str(highest + 2)
            self.copy.set_version(third)
            self.copy.mistake_the_port()
            failed = self._up(f"Version {third} never gets healthy", expect=("failed",))
            if failed.error != "unhealthy":
                raise Failed(f"version {third} failed for another reason: {failed.error}")
            self._expect_version(site, second)
            self._so_far(load)

            self._revert(f"Back to version {version}", first.release, flips_to=version)
            self._expect_version(site, version)
            report = load.stop()

        kept, written = site.notes(mark), 3 + len(report.shape("notes").took)
        older = site.notes() - kept
        fine = report.lost == 0 and kept >= written and older >= from_before
        self._tables(report, settings, kept=kept, written=written, older=older, from_before=from_before)
        self._goodbye(site, version, first.release, time.monotonic() - began)
        return fine

    def _found(self) -> tuple[str | None, int]:
        """The version that is live now, if one is, and the highest release number that was ever given."""
        status, history = self.imm.ask("status"), self.imm.ask("history")
        highest = max((record["release"] for record in history if record.get("release")), default=0)
        if status["live"] is None:
            return None, highest
        return Site(status["urls"][0]).version(), max(highest, status["live"]["release"])

    def _up(self, title: str, *, expect: tuple[str, ...], flips_to: str | None = None) -> Deployment:
        done = self._deploy(title, "up", expect=(*expect, "failed"), flips_to=flips_to)
        if done.error == "other_project":
            # The same app, deployed from sample_app itself or from another clone.
            return self._deploy(title, "up", "--take-over", expect=expect, flips_to=flips_to)
        return self._check(done, expect)

    def _revert(self, title: str, release: int, *, flips_to: str) -> None:
        self._deploy(title, "revert", str(release), expect=("live",), flips_to=flips_to)

    def _deploy(
        self, title: str, *words: str, expect: tuple[str, ...], flips_to: str | None = None
    ) -> Deployment:
        self.console.rule(f"[bold]{title}", align="left")
        self._say(f"$ imm {' '.join(words)}", style="cyan")
        done = self.imm.deploy(*words, show=self._show)
        if done.steps and done.steps[-1].state == "done":
            self.console.print()
        if done.outcome == "unchanged":
            self._say(f"nothing to do: release {done.release} is live ({done.seconds:.1f} s)")
        elif done.outcome == "live":
            self._say(f"release {done.release} is live after {done.seconds:.1f} s", style="green")
        if flips_to is not None and done.flip is not None:
            self.flips[flips_to] = done.flip
        return self._check(done, expect)

    @staticmethod
    def _check(done: Deployment, expect: tuple[str, ...]) -> Deployment:
        if done.outcome not in expect:
            raise Failed(f"imm said {done.outcome}, not {' or '.join(expect)} ({done.error})")
        return done

    def _show(self, step: Step) -> None:
        done = step.state == "done"
        self.console.print(
            f"{step.name} {step.seconds:.2f} s",
            # What imm says of a failure comes next.
            end="  " if done else "\n",
            style="dim" if done else "bold red",
            highlight=False,
            soft_wrap=True,
        )

    @staticmethod
    def _expect_version(site: Site, version: str) -> None:
        if (answered := site.version()) != version:
            raise Failed(f"version {answered} answers where {version} should")

    def _so_far(self, load: Load) -> None:
        progress = load.progress()
        self._say(f"load so far: {progress.sent:,} requests, {progress.lost} failed")

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _tables(
        self, report: Report, settings: Settings, *, kept: int, written: int, older: int, from_before: int
    ) -> None:
        self.console.rule("[bold]What the load saw", align="left")
        self.console.print(table(report))
        for line in losses(report):
            self._say(f"lost {line}", style="red")
        slowest = max(
            shape.latencies().max - (settings.slow if shape.shape == "slow" else 0) for shape in report.shapes
        )
        summary = Table(show_header=False)
        summary.add_row("requests sent", f"{report.sent:,} in {report.ended - report.began:.0f} s")
        summary.add_row("requests failed", str(report.lost), style="red" if report.lost else "green")
        summary.add_row("slowest answer", f"{slowest * 1000:.0f} ms, beyond what it was asked to take")
        data = f"{min(kept, written):,} of {written:,} notes written meanwhile"
        if from_before:
            data += f", {min(older, from_before):,} of {from_before:,} from before"
        summary.add_row(
            "data kept", data, style="green" if kept >= written and older >= from_before else "red"
        )
        flips = ", ".join(
            f"to version {version} in {took * 1000:.0f} ms" for version, took in self.flips.items()
        )
        summary.add_row("flips, confirmed", flips)
        self.console.print(summary)

    def _goodbye(self, site: Site, version: str, release: int, seconds: float) -> None:
        program = " ".join(
            _beneath(Path(word)) if word.startswith("/") else word for word in self.imm.program
        )
        imm = f"{program} -f {_beneath(self.copy.file)}"
        self._say(f"Version {version} (release {release}) goes on running: {site.url}")
        self._say(f"What else: {imm} status | history | logs | revert")
        self._say(f"Take it down: {imm} down")
        self._say(f"The demo took {seconds:.0f} s.")


def _beneath(path: Path) -> str:
    """The path from here where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> int:
    """Tell the story: 0 when all went well, 1 when something failed or was lost, 130 when interrupted."""
    console = Console()
    try:
        return 0 if Story(console).tell() else 1
    except (Failed, NotLoopback, requests.RequestException) as failed:
        console.print(f"demo: {failed}", style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("demo: interrupted; run it again to go on")
        return 130


if __name__ == "__main__":
    sys.exit(main())

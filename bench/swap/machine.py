"""The machine that figures come from, and what of its processors a run used."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import Report
from bench.swap.figures import Spent


@dataclass(frozen=True)
class Clock:
    """The processors' time at one moment."""

    there: float
    idle: float
    commands: float

    @classmethod
    def now(cls) -> Clock:
        ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        # Waiting for a disk is idle too. What a hypervisor took was never there.
        idle, stolen = ticks[3] + ticks[4], ticks[7]
        hertz = os.sysconf("SC_CLK_TCK")
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls((sum(ticks) - stolen) / hertz, idle / hertz, children.ru_utime + children.ru_stime)

    def spent(self, report: Report) -> Spent:
        """What was used from this moment until now, by whom."""
        later = Clock.now()
        there = later.there - self.there
        return Spent(
            cores=os.cpu_count() or 1,
            there=there,
            used=there - (later.idle - self.idle),
            load=report.cpu,
            commands=later.commands - self.commands,
        )


def described(engine: Any) -> dict[str, str]:
    """This machine, in words."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processors": f"{os.cpu_count()} x {model[0] if model else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "docker": str(engine.version()["Version"]),
        "python": platform.python_version(),
    }

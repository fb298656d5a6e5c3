"""An engine far away: how often imm asks it, and how long its commands take over a line of 20 ms."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.speed.project import Project, Ran, base_image, deployed
from bench.speed.relay import counting, distant
from bench.speed.row import Row, Unmeasured
from tests.remote.second_engine import PROGRAMS, SSH_PORT, SSH_PROGRAMS, SecondEngine, why_not

ROUND_TRIP = 0.02
WRAPPER = """\
#!/bin/sh
exec {ssh} -o HostKeyAlias='[{address}]:{port}' "$@"
"""


def rows(keys: set[str], folder: Path, times: int) -> Iterator[Row | Unmeasured]:
    """On an engine of the bench's own, in a network of its own."""
    reason = why_not((*PROGRAMS, *SSH_PROGRAMS))
    if reason:
        yield from (Unmeasured(key, reason) for key in ("requests", "ssh") if key in keys)
        return
    with SecondEngine.running([base_image("python"), base_image("nginx")]) as engine:
        if "requests" in keys:
            yield from requests(engine, folder)
        if "ssh" in keys:
            yield from over_ssh(engine, folder, times)


def requests(engine: SecondEngine, folder: Path) -> Iterator[Row]:
    """How often each command asks the engine, and the sidecar through it: each waits for one round trip."""
    path = folder / "relay.sock"
    with ExitStack() as ending:
        relay = ending.enter_context(counting(path, engine.socket))
        way = {"DOCKER_HOST": f"unix://{path}"}
        project = ending.enter_context(deployed(folder, base_image("python"), way))
        project.up("1")
        commands: dict[str, Callable[[], Ran]] = {
            "imm status": lambda: project.imm("status"),
            "imm up with nothing to do": lambda: project.imm("up"),
            "imm up after one changed file": lambda: project.up("2"),
            "imm revert": lambda: project.imm("revert"),
        }
        for name, run in commands.items():
            relay.noted.clear()
            run()
            engines, sidecars = len(relay.of_kind("request")), len(relay.of_kind("sidecar"))
            figure = f"{name}: requests to the engine and things asked of the sidecar"
            yield Row(
                "requests",
                figure,
                (engines + sidecars,),
                unit="count",
                remark=f"{engines} + {sidecars}",
            )


def over_ssh(engine: SecondEngine, folder: Path, times: int) -> Iterator[Row]:
    """The line is a relay that holds up each piece for half a round trip: this kernel has no netem."""
    way = engine.serve_ssh()
    with distant(engine.address, SSH_PORT, ROUND_TRIP) as port:
        program = folder / "bin" / "ssh"
        program.parent.mkdir()
        # The relay listens on the loopback, and the engine's key is known by another name.
        ssh = f"{way['PATH'].partition(':')[0]}/ssh"
        program.write_text(WRAPPER.format(ssh=ssh, address=engine.address, port=SSH_PORT))
        program.chmod(0o755)
        environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "DOCKER_HOST": f"ssh://root@127.0.0.1:{port}{engine.socket}",
        }
        with deployed(folder, base_image("python"), environment) as project:
            yield from _commands(project, [str(program), "-p", str(port), "root@127.0.0.1", "true"], times)


def _commands(project: Project, login: list[str], times: int) -> Iterator[Row]:
    status, same, changed, floor = [], [], [], []
    for number in range(times):
        began = time.perf_counter()
        subprocess.run(login, stdin=subprocess.DEVNULL, check=True)
        floor.append(time.perf_counter() - began)
        status.append(project.imm("status").seconds)
        same.append(project.imm("up").seconds)
        changed.append(project.up(f"far {number}").seconds)
    for name, samples in (
        ("imm status", status),
        ("imm up with nothing to do", same),
        ("imm up after one changed file", changed),
    ):
        figure = f"{name}, over ssh with a round trip of {ROUND_TRIP * 1000:g} ms"
        yield Row("ssh", figure, tuple(samples), "ssh HOST true", tuple(floor))

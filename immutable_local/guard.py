"""A guard beside a command that others depend on: should it be killed, what it left is put right at once.

The guard is a shell that reads a pipe from the command. When the command ends, whatever its end, it says so,
and the guard ends too. The pipe's end without that word means that nobody was left to say it: only then is
Python started. A command that is frozen is alive, and its guard waits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

OVER = b"over\n"
WAIT = 'read -r over || exec "$@"'
# With the command's own path: however imm was found, it is found again.
RECOVER = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    " module, name = sys.argv.pop(1).split(':'); getattr(importlib.import_module(module), name)()"
)
# It ends when it is told to; nobody waits for a shell that somebody froze.
ENDING_SECONDS = 2.0


@contextmanager
def guard(recovery: Callable[[], None], *words: str, report: Callable[[str], Any]) -> Iterator[None]:
    """Should this process be killed meanwhile, `recovery` is done by a program with these words.

    The guard has a session of its own: what a terminal or a shell does to the command doesn't reach it. When
    none can be started, `report` is told.
    """
    path = json.dumps([str(each) for each in sys.path])
    program = f"{recovery.__module__}:{recovery.__name__}"
    # Else Python looks for modules in the folder that the command was given in first, which may be anybody's.
    recover = [sys.executable, "-P", "-c", RECOVER, path, program, *words]
    try:
        shell = subprocess.Popen(
            ["/bin/sh", "-c", WAIT, "imm-guard", *recover],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as failed:
        report(f"no guard could be started ({failed}): should this command be killed, the next one sweeps")
        yield
        return
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            shell.communicate(OVER, timeout=ENDING_SECONDS)

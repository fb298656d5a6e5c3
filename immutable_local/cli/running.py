"""What commands have in common: the app, the host, and a deployment that tells its steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from immutable_local.cli.ending import (
    error_for,
    failure_json,
    interrupted,
    interruptible,
    nobody_reads,
    the_terminal,
)
from immutable_local.cli.options import asked
from immutable_local.errors import ImmError, UsageError

if TYPE_CHECKING:
    from immutable_local.app import App
    from immutable_local.engine import Engine
    from immutable_local.events import Result, Teller
    from immutable_local.host import Begun


def the_app(to_build: bool = False) -> tuple[App, Path]:
    """The app and its folder; what is only needed to make releases is looked at for those who make one."""
    from immutable_local.config import read

    folder = _folder()
    return read(asked.file, to_build), folder


def _folder() -> Path:
    try:
        return asked.file.absolute().parent
    except OSError as gone:
        raise UsageError(
            f"this folder can't be looked at: {gone.strerror}", hint="go to the app's folder"
        ) from gone


def the_engine() -> Engine:
    from immutable_local.engine import connect

    return connect()


def the_host() -> Begun:
    """The host as it is. Raises what stands in the way of asking it."""
    from immutable_local import host

    return asked.begun() if asked.begun else host.begin(the_engine())


def new_teller() -> Teller:
    from immutable_local.events import Teller

    return Teller(the_terminal().hear)


def deploy_by(command: Callable[[Begun, App, Path, Teller], Result], to_build: bool = False) -> None:
    """Run a deployment, showing its steps; its result is the last thing said, also of a wrong imm.toml."""
    from immutable_local import render
    from immutable_local.events import Teller

    terminal = the_terminal()
    tell = Teller(terminal.hear)
    name = ""
    try:
        with interruptible(tell):
            app, folder = the_app(to_build)
            name = app.name
            if asked.json:
                tell.listener = render.JsonLines(name, terminal).hear
            result = command(the_host(), app, folder, tell)
    except (Exception, KeyboardInterrupt) as failed:
        if isinstance(failed, KeyboardInterrupt):
            error = interrupted(tell)
        else:
            error = failed if isinstance(failed, ImmError) else error_for(failed)
        if not isinstance(error, UsageError):
            error.still = error.still or tell.reached or tell.stands
        if asked.json:
            try:
                render.print_json(failure_json(error, tell, name))
            except OSError:
                # Nobody reads it there: its code, and its words on standard error, still count.
                nobody_reads()
            error.told = True
        if error is failed:
            raise  # with the cause that it has
        raise error from failed
    try:
        if asked.json:
            render.print_json(render.result_json(result, name))
        else:
            print(render.result_text(result, name), flush=True)
    except OSError:
        # It is done, whether or not anybody reads so.
        nobody_reads()

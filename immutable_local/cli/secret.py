"""`imm secret`: set, list, remove."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from immutable_local.cli.ending import interruptible, print_json
from immutable_local.cli.options import GLOBAL_OPTIONS, Commands, Wait, asked, seconds_of
from immutable_local.cli.running import new_teller, the_app, the_host
from immutable_local.errors import NotFound, UsageError, shown

if TYPE_CHECKING:
    from immutable_local.host import Begun

secret_cli = typer.Typer(
    cls=Commands,
    help="Secrets of the app, kept on the engine's host.",
    no_args_is_help=True,
    epilog=GLOBAL_OPTIONS,
)


@secret_cli.command("set", epilog=GLOBAL_OPTIONS)
def secret_set(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, as in imm.toml.")],
    from_file: Annotated[
        Path | None,
        # Whether it can be read is found, and told, by who reads it.
        typer.Option(
            "--from",
            metavar="FILE",
            help="A file that is the value, byte for byte (default: a prompt, or standard input).",
            readable=False,
        ),
    ] = None,
    wait: Wait = "0s",
) -> None:
    """Set a secret.

    Its value comes from a prompt, a file or standard input.
    """
    from immutable_local import secret
    from immutable_local.config import check_secret_name

    check_secret_name(name)
    seconds = seconds_of(wait)
    app, _ = the_app()
    value = secret.check_value(name, _value(name, from_file))
    changed = _with_lock(
        the_host(),
        app.name,
        "secret set",
        seconds,
        lambda session: secret.put(session, app.name, name, value),
    )
    used = any(name in service.secrets for service in app.services)
    if asked.json:
        print_json({"app": app.name, "secret": name, "changed": changed})
        return
    print(f"{name} is set" if changed else f"{name} had that value already")
    if changed:
        print(
            "next: imm up hands it over, replacing the instances that use it"
            if used
            else f'next: name it in imm.toml, secrets = ["{name}"], then run imm up'
        )


@secret_cli.command("list", epilog=GLOBAL_OPTIONS)
def secret_list() -> None:
    """The secrets' names, and since when; never a value."""
    from immutable_local import render
    from immutable_local.status import secrets_of

    app, _ = the_app()
    known = secrets_of(the_host(), app.name)
    wanted = sorted({name for service in app.services for name in service.secrets} - set(known))
    if asked.json:
        print_json(
            [{"name": n, "since": s} for n, s in known.items()] + [{"name": n, "since": None} for n in wanted]
        )
        return
    rows = [[name, f"set {render.ago(since)} ago"] for name, since in known.items()]
    rows += [[name, "no value yet"] for name in wanted]
    print(render.table(rows, ["NAME", "VALUE"]) if rows else "no secrets")


@secret_cli.command("remove", epilog=GLOBAL_OPTIONS)
def secret_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, as in imm.toml.")],
    wait: Wait = "0s",
) -> None:
    """Forget a secret. Running instances keep what they were given."""
    from immutable_local import secret
    from immutable_local.config import check_secret_name
    from immutable_local.host import untouched

    check_secret_name(name)
    seconds = seconds_of(wait)
    app, _ = the_app()
    begun = the_host()
    existed = not untouched(begun) and _with_lock(
        begun, app.name, "secret remove", seconds, lambda session: secret.remove(session, app.name, name)
    )
    if not existed:
        raise NotFound(
            f"there is no secret {name} of {app.name}", hint="imm secret list shows those that are set"
        )
    if asked.json:
        print_json({"app": app.name, "secret": name, "removed": True})
        return
    print(f"{name} is removed")
    users = [service.name for service in app.services if name in service.secrets]
    if users:
        still = f"{', '.join(users)} in imm.toml still {'names' if len(users) == 1 else 'name'} it"
        print(f"next: {still}: imm up, and imm revert to a release that does, are refused without a value")


def _with_lock(begun: Begun, app: str, command: str, wait: float, act: Callable[[Any], bool]) -> bool:
    from immutable_local import lock, making

    tell = new_teller()
    with interruptible(
        tell, f"{command} may be done, or not", "imm secret list tells since when each is set"
    ):
        ready = making.ensure(begun, tell.warn)
        try:
            lock.take(ready.session, app, command, wait)
            return act(ready.session)
        finally:
            ready.close()


def _value(name: str, from_file: Path | None) -> bytes:
    from immutable_local.secret import LIMIT_BYTES

    # Enough to see that it is too much.
    most = LIMIT_BYTES + 2
    if from_file is not None:
        try:
            with from_file.open("rb") as file:
                return file.read(most)
        except OSError as failed:
            raise UsageError(
                f"{shown(str(from_file))} cannot be read: {failed.strerror}",
                hint="name a file that you may read",
            ) from failed
    if sys.stdin is None:
        raise UsageError(
            f"there is no standard input to read the value of {name} from", hint="give it with --from FILE"
        )
    if sys.stdin.isatty():
        try:
            # With a default, or an empty line would be asked for again without a word.
            typed = typer.prompt(
                f"value of {name}", default="", show_default=False, hide_input=True, err=True
            )
            return str(typed).encode(errors="surrogateescape")
        except UnicodeDecodeError as undecodable:
            return undecodable.object
    value = sys.stdin.buffer.read(most)
    # `echo secret | imm secret set X` means the word, not the line's end.
    return value[:-1] if value.endswith(b"\n") else value

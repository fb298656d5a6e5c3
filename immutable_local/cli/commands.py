"""The commands that an app's folder is for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from immutable_local.cli.ending import interruptible, print_json
from immutable_local.cli.options import GLOBAL_OPTIONS, Commands, Wait, asked, release_number, seconds_of
from immutable_local.cli.running import deploy_by, new_teller, the_app, the_engine, the_host
from immutable_local.errors import UsageError

if TYPE_CHECKING:
    from immutable_local.app import App
    from immutable_local.events import Result, Teller
    from immutable_local.host import Begun

cli = typer.Typer(
    name="imm",
    cls=Commands,
    help="Version and replace: immutable deployments on a Docker engine.",
    epilog=GLOBAL_OPTIONS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        from immutable_local import __version__

        if asked.json:
            print_json({"version": __version__})
        else:
            print(f"imm {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    file: Annotated[
        Path,
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="The app's imm.toml (default: imm.toml).",
            show_default=False,
            readable=False,
        ),
    ] = Path("imm.toml"),
    json: Annotated[
        bool, typer.Option("--json", help="JSON on standard output, and nothing else there.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (also: NO_COLOR).")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version),
    ] = False,
) -> None:
    asked.file, asked.json, asked.quiet, asked.debug = file, json, quiet, debug
    asked.color = False if no_color else None


@cli.command(epilog=GLOBAL_OPTIONS)
def init() -> None:
    """Look at this folder and write an imm.toml.

    It goes by the Dockerfile's EXPOSE and VOLUME.
    """
    from immutable_local.init import propose

    path = asked.file
    text = propose(path.parent, path.name)
    try:
        path.write_bytes(text.encode())
    except OSError as failed:
        raise UsageError(
            f"{path} cannot be written: {failed.strerror}", hint="see whether you may write into its folder"
        ) from failed
    if asked.json:
        print_json({"file": str(path)})
    else:
        from immutable_local.render import visible

        print(f"wrote {visible(str(path))}:\n\n{text}\nnext: imm up")


@cli.command(epilog=GLOBAL_OPTIONS)
def plan(
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 10 when there are changes.")
    ] = False,
) -> None:
    """Say what `up` would do and why; changes nothing of what is live."""
    from immutable_local import deploy
    from immutable_local.config import placed
    from immutable_local.deployment import Options

    app, folder = the_app(to_build=True)
    tell = new_teller()
    with placed(asked.file):
        decided, found = deploy.plan_up(the_engine(), app, folder, Options(), tell)
    if asked.json:
        print_json(
            {
                "app": app.name,
                "live": found.live.release if found.live else None,
                "changes": [
                    {"verb": c.verb, "service": c.service, "cause": c.cause} for c in decided.changes
                ],
                "stop_first": list(decided.stop_first),
                "nothing_to_do": decided.nothing_to_do,
            }
        )
    else:
        for change in decided.changes:
            print(change)
        for name in decided.stop_first:
            print(f"stop {name} first: it has a volume for one writer")
        if app.watch and decided.stop_first:
            print("not watched: what stops first is not up to flip back to")
        if decided.nothing_to_do:
            print("nothing to do")
        elif all(change.verb == "keep" for change in decided.changes):
            print(f"a new release of the same instances: {decided.cause}")
    if exit_code and not decided.nothing_to_do:
        raise typer.Exit(10)


@cli.command(epilog=GLOBAL_OPTIONS)
def up(
    wait: Wait = "0s",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Build without any cache, and take what comes out.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Replace another project's app of this name.")
    ] = False,
) -> None:
    """Build, start beside, check health, flip, drain, retire. Nothing to do is a success."""
    seconds = seconds_of(wait)

    def command(begun: Begun, app: App, folder: Path, tell: Teller) -> Result:
        from immutable_local import deploy
        from immutable_local.config import placed
        from immutable_local.deployment import Options

        with placed(asked.file):
            return deploy.up(begun, app, folder, Options(seconds, fresh, take_over), tell)

    deploy_by(command, to_build=True)


@cli.command(epilog=GLOBAL_OPTIONS)
def revert(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[N]", help="The release (default: the one live before).", parser=release_number
        ),
    ] = None,
    wait: Wait = "0s",
) -> None:
    """Make an earlier release live again, code and settings of then."""
    seconds = seconds_of(wait)

    def command(begun: Begun, app: App, folder: Path, tell: Teller) -> Result:
        from immutable_local import deploy
        from immutable_local.deployment import Options

        return deploy.revert(begun, app.name, number, Options(seconds), app.keep, tell)

    deploy_by(command)


@cli.command(epilog=GLOBAL_OPTIONS)
def down(wait: Wait = "0s") -> None:
    """Take the app off this host; volumes, secrets and history stay."""
    seconds = seconds_of(wait)

    def command(begun: Begun, app: App, folder: Path, tell: Teller) -> Result:
        from immutable_local import deploy
        from immutable_local.deployment import Options

        return deploy.down(begun, app.name, Options(seconds), tell)

    deploy_by(command)


@cli.command(epilog=GLOBAL_OPTIONS)
def status() -> None:
    """What is live, where, and what can be reverted to."""
    from immutable_local import render
    from immutable_local.status import of_app

    app, _ = the_app()
    told = of_app(the_host(), app)
    if asked.json:
        print_json(told)
        return
    live = told["live"]
    if live is None:
        print(f"{app.name} is not deployed on this host")
    else:
        git = f", commit {live['git']}" if live["git"] else ""
        print(f"release {live['release']} of {app.name} has been live for {render.ago(live['since'])}{git}")
        rows = [
            [name, each["instance"], each["state"], each["health"], render.ago(each["started"])]
            for name, instances in told["services"].items()
            for each in instances
        ]
        print(render.table(rows, ["SERVICE", "INSTANCE", "STATE", "HEALTH", "AGE"]))
        for each in told["traffic"]:
            rate, errors = each["requests_per_second"], each["errors_per_second"]
            print(f"release {each['release']} now: {rate:g} requests/s, {errors:g} of them 5xx")
        for number, url in enumerate(told["urls"]):
            print("         " if number else "address:", url)
    if told["revertable"]:
        print(f"can be reverted to: {', '.join(str(number) for number in told['revertable'])}")
    proxy = told["proxy"]
    print(f"proxy: {proxy['kind']}, {proxy['state']}" if proxy else "proxy: not there yet (imm up starts it)")


@cli.command(epilog=GLOBAL_OPTIONS)
def history() -> None:
    """Every event with time, who, how long, and why."""
    from immutable_local import render
    from immutable_local.status import records_of

    app, _ = the_app()
    records = records_of(the_host(), app.name)
    if asked.json:
        print_json(records)
    elif not records:
        print(f"nothing has happened to {app.name} on this host yet")
    else:
        import shutil

        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(render.history_table(records, width))


@cli.command(epilog=GLOBAL_OPTIONS)
def logs(
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Of that service (default: of each).")
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as lines are written, with the next release, too.")
    ] = False,
    release: Annotated[
        int | None,
        typer.Option(
            "--release",
            metavar="N",
            help="Of that release, gone or not (default: what is live).",
            parser=release_number,
        ),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            "-n",
            metavar="LINES",
            help="Only the last lines of each instance (default: all).",
            min=0,
        ),
    ] = None,
) -> None:
    """The logs of what is live, or of a release that is gone."""
    from immutable_local.logs import lines

    app, _ = the_app()
    try:
        tell = new_teller()
        for name, line in lines(the_engine(), app.name, service, release, follow, tail, tell.note):
            if asked.json:
                print_json({"instance": name, "line": line})
            else:
                print(f"{name} | {line}", flush=follow)
    except KeyboardInterrupt:
        # The end that somebody who follows a log gives it.
        if not follow:
            raise


@cli.command(epilog=GLOBAL_OPTIONS)
def prune(wait: Wait = "0s") -> None:
    """Remove old releases' images and build cache.

    Of this app only; never a volume, never what is live.
    """
    from rich.filesize import decimal

    from immutable_local import deploy
    from immutable_local.deployment import Options

    seconds = seconds_of(wait)
    app, _ = the_app()
    tell = new_teller()
    with interruptible(tell, "what it had removed is gone, the rest stays"):
        removed = deploy.prune_releases(the_engine(), app.name, app.keep, Options(seconds), tell)
    if asked.json:
        cache = {"records": removed.cache_records, "bytes": removed.cache_bytes}
        print_json({"app": app.name, "removed": removed.releases, "cache": cache})
        return
    some = "release" if len(removed.releases) == 1 else "releases"
    told = [f"{some} {', '.join(map(str, removed.releases))}"] if removed.releases else []
    if removed.cache_records:
        told.append(f"{removed.cache_records} build cache records, {decimal(removed.cache_bytes)}")
    for each in told:
        print(f"removed {each}")
    if not told:
        print("nothing to remove")


@cli.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run() -> None:
    """A one-off command in a fresh container of the live release: not supported yet."""
    raise UsageError(
        "imm run: not supported yet",
        code="not_supported",
        hint="docker exec runs a command in an instance of the live release; imm status names them",
    )


@cli.command(epilog=GLOBAL_OPTIONS)
def doctor() -> None:
    """Is everything there that imm needs, and what to do if not."""
    from immutable_local.doctor import examine
    from immutable_local.render import Terminal, visible

    findings = examine()
    if asked.json:
        print_json([{"what": f.what, "ok": f.ok, "found": f.found, "hint": f.hint} for f in findings])
    else:
        terminal = Terminal(color=asked.color, stream=sys.stdout)
        for finding in findings:
            mark = terminal.paint("ok", "32") if finding.ok else terminal.paint("no", "31;1")
            print(f"{mark}  {finding.what}: {visible(finding.found)}")
            if finding.hint and not finding.ok:
                print(f"    next: {finding.hint}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(next(finding.exit_code for finding in findings if not finding.ok))

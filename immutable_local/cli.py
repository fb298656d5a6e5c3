"""The command line: parse, call, render. The only place that prints and exits.

Nothing is imported that a command doesn't need: `imm --help` never loads the Docker SDK.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from immutable_local.errors import ImmError, NotFound, UsageError, shown

if TYPE_CHECKING:
    from immutable_local.app import App
    from immutable_local.engine import Engine
    from immutable_local.events import Result, Teller
    from immutable_local.host import Begun
    from immutable_local.render import Terminal

GLOBAL_OPTIONS = (
    "Everywhere: -f/--file FILE (default: imm.toml), --json, --quiet, --no-color (or NO_COLOR), --debug."
)
BROKEN_PIPE = 1
LONGEST_WAIT_SECONDS = 365 * 86400.0
# What Typer makes of Ctrl-C.
INTERRUPTED = 130
# What a shell sets that asks for completion.
COMPLETING = "_IMM_COMPLETE"
# Ctrl-C, `kill`, and the terminal's end: what ends a command, and lets it undo what it began.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNDONE = "what wasn't live is undone"
# Whose last line of JSON is a result, whatever went wrong.
WITH_A_RESULT = ("up", "revert", "down")

cli = typer.Typer(
    name="imm",
    help="Version and replace: immutable deployments on a Docker engine.",
    epilog=GLOBAL_OPTIONS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
proxy_cli = typer.Typer(
    help="The host's proxy, shared by all apps.", no_args_is_help=True, epilog=GLOBAL_OPTIONS
)
secret_cli = typer.Typer(
    help="Secrets of the app, kept on the engine's host.", no_args_is_help=True, epilog=GLOBAL_OPTIONS
)
cli.add_typer(proxy_cli, name="proxy")
cli.add_typer(secret_cli, name="secret")


@dataclass
class Globals:
    """What every command takes."""

    file: Path = Path("imm.toml")
    json: bool = False
    quiet: bool = False
    color: bool | None = None
    debug: bool = False
    begun: Callable[[], Begun] | None = None
    command: str | None = None


asked = Globals()
ALONE = ("--json", "--quiet", "-q", "--no-color", "--debug", "--version")

Wait = Annotated[
    str, typer.Option("--wait", metavar="TIME", help="How long to wait for another deployment: 30s, 5m.")
]


def _release_number(told: str) -> int:
    # int() takes more: signs, blanks, underscores, and more digits than a release will ever have.
    if not re.fullmatch(r"[1-9][0-9]{0,8}", told):
        raise UsageError(f"{shown(told)}: not a release's number", hint="imm history names them: 1, 2, 3...")
    return int(told)


def show_version(wanted: bool) -> None:
    if wanted:
        from immutable_local import __version__

        print(f"imm {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    file: Annotated[Path, typer.Option("-f", "--file", help="The app's imm.toml.", readable=False)] = Path(
        "imm.toml"
    ),
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
    """Look at this folder (Dockerfile, EXPOSE, VOLUME) and write an imm.toml."""
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
        _print_json({"file": str(path)})
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

    app, folder = _app(to_build=True)
    tell = _teller()
    with placed(asked.file):
        decided, found = deploy.plan_up(_engine(), app, folder, Options(), tell)
    if asked.json:
        _print_json(
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
    seconds = _seconds(wait)

    def command(begun: Begun, app: App, folder: Path, tell: Teller) -> Result:
        from immutable_local import deploy
        from immutable_local.config import placed
        from immutable_local.deployment import Options

        with placed(asked.file):
            return deploy.up(begun, app, folder, Options(seconds, fresh, take_over), tell)

    _deploy(command, to_build=True)


@cli.command(epilog=GLOBAL_OPTIONS)
def revert(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[N]", help="The release; default: the one live before.", parser=_release_number
        ),
    ] = None,
    wait: Wait = "0s",
) -> None:
    """Make an earlier release live again, code and settings of then."""
    seconds = _seconds(wait)

    def command(begun: Begun, app: App, folder: Path, tell: Teller) -> Result:
        from immutable_local import deploy
        from immutable_local.deployment import Options

        return deploy.revert(begun, app.name, number, Options(seconds), app.keep, tell)

    _deploy(command)


@cli.command(epilog=GLOBAL_OPTIONS)
def down(wait: Wait = "0s") -> None:
    """Take the app off this host; volumes, secrets and history stay."""
    seconds = _seconds(wait)

    def command(begun: Begun, app: App, folder: Path, tell: Teller) -> Result:
        from immutable_local import deploy
        from immutable_local.deployment import Options

        return deploy.down(begun, app.name, Options(seconds), tell)

    _deploy(command)


@cli.command(epilog=GLOBAL_OPTIONS)
def status() -> None:
    """What is live, its instances, the address, what else could be reverted to."""
    from immutable_local import render
    from immutable_local.status import of_app

    app, _ = _app()
    told = of_app(_begun(), app)
    if asked.json:
        _print_json(told)
        return
    live = told["live"]
    if live is None:
        print(f"{app.name} is not deployed on this host")
    else:
        git = f", commit {live['git']}" if live["git"] else ""
        print(f"release {live['release']} of {app.name} is live, since {render.ago(live['since'])} ago{git}")
        rows = [
            [name, each["instance"], each["state"], each["health"], render.ago(each["started"])]
            for name, instances in told["services"].items()
            for each in instances
        ]
        print(render.table(rows, ["SERVICE", "INSTANCE", "STATE", "HEALTH", "AGE"]))
        for each in told["traffic"]:
            rate, errors = each["requests_per_second"], each["errors_per_second"]
            print(f"release {each['release']} now: {rate:g} requests/s, {errors:g} of them 5xx")
        for url in told["urls"]:
            print(f"address: {url}")
    if told["revertable"]:
        print(f"can be reverted to: {', '.join(str(number) for number in told['revertable'])}")
    proxy = told["proxy"]
    print(f"proxy: {proxy['kind']}, {proxy['state']}" if proxy else "proxy: not there yet (imm up starts it)")


@cli.command(epilog=GLOBAL_OPTIONS)
def history() -> None:
    """Every event with time, who, how long, and why it failed."""
    from immutable_local import render
    from immutable_local.status import records_of

    app, _ = _app()
    records = records_of(_begun(), app.name)
    if asked.json:
        _print_json(records)
    elif not records:
        print(f"nothing has happened to {app.name} on this host yet")
    else:
        head = ["N", "AT (UTC)", "EVENT", "RELEASE", "BY", "TOOK", "COMMIT", "ERROR"]
        print(render.table(render.history_rows(records), head))


@cli.command(epilog=GLOBAL_OPTIONS)
def logs(
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines are written.")] = False,
    release: Annotated[
        int | None,
        typer.Option("--release", metavar="N", help="Of that release, gone or not.", parser=_release_number),
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", help="Only the last lines.", min=0)
    ] = None,
) -> None:
    """The logs of what is live, or of a release that is gone."""
    from immutable_local.logs import lines

    app, _ = _app()
    try:
        for name, line in lines(_engine(), app.name, service, release, follow, tail):
            if asked.json:
                _print_json({"instance": name, "line": line})
            else:
                print(f"{name} | {line}", flush=follow)
    except KeyboardInterrupt:
        # The end that somebody who follows a log gives it.
        if not follow:
            raise


@cli.command(epilog=GLOBAL_OPTIONS)
def prune(wait: Wait = "0s") -> None:
    """Remove old releases' images and build cache, of this app only; never a volume, never what is live."""
    from rich.filesize import decimal

    from immutable_local import deploy
    from immutable_local.deployment import Options

    seconds = _seconds(wait)
    app, _ = _app()
    tell = _teller()
    with _interruptible(tell, "what it had removed is gone, the rest stays"):
        removed = deploy.prune_releases(_engine(), app.name, app.keep, Options(seconds), tell)
    if asked.json:
        cache = {"records": removed.cache_records, "bytes": removed.cache_bytes}
        _print_json({"app": app.name, "removed": removed.releases, "cache": cache})
        return
    told = [f"the releases {', '.join(map(str, removed.releases))}"] if removed.releases else []
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
        _print_json([{"what": f.what, "ok": f.ok, "found": f.found, "hint": f.hint} for f in findings])
    else:
        terminal = Terminal(color=asked.color, stream=sys.stdout)
        for finding in findings:
            mark = terminal.paint("ok", "32") if finding.ok else terminal.paint("no", "31;1")
            print(f"{mark}  {finding.what}: {visible(finding.found)}")
            if finding.hint and not finding.ok:
                print(f"    next: {finding.hint}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(next(finding.exit_code for finding in findings if not finding.ok))


@secret_cli.command("set", epilog=GLOBAL_OPTIONS)
def secret_set(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    from_file: Annotated[
        Path | None,
        # Whether it can be read is found, and told, by who reads it.
        typer.Option(
            "--from", metavar="FILE", help="A file that is the value, byte for byte.", readable=False
        ),
    ] = None,
    wait: Wait = "0s",
) -> None:
    """Set a secret; its value comes from a prompt, a file or standard input."""
    from immutable_local import secret
    from immutable_local.config import check_secret_name

    check_secret_name(name)
    seconds = _seconds(wait)
    app, _ = _app()
    value = secret.check_value(name, _secret_value(name, from_file))
    changed = _with_lock(
        _begun(), app.name, "secret set", seconds, lambda session: secret.put(session, app.name, name, value)
    )
    used = any(name in service.secrets for service in app.services)
    if asked.json:
        _print_json({"app": app.name, "secret": name, "changed": changed})
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
    """The names of the secrets that are set, and since when; never a value."""
    from immutable_local import render
    from immutable_local.status import secrets_of

    app, _ = _app()
    known = secrets_of(_begun(), app.name)
    wanted = sorted({name for service in app.services for name in service.secrets} - set(known))
    if asked.json:
        _print_json(
            [{"name": n, "since": s} for n, s in known.items()] + [{"name": n, "since": None} for n in wanted]
        )
        return
    rows = [[name, f"set {render.ago(since)} ago"] for name, since in known.items()]
    rows += [[name, "no value yet"] for name in wanted]
    print(render.table(rows, ["NAME", "VALUE"]) if rows else "no secrets")


@secret_cli.command("remove", epilog=GLOBAL_OPTIONS)
def secret_remove(name: Annotated[str, typer.Argument(metavar="NAME")], wait: Wait = "0s") -> None:
    """Forget a secret. Running instances keep what they were given."""
    from immutable_local import secret
    from immutable_local.config import check_secret_name
    from immutable_local.host import untouched

    check_secret_name(name)
    seconds = _seconds(wait)
    app, _ = _app()
    begun = _begun()
    existed = not untouched(begun) and _with_lock(
        begun, app.name, "secret remove", seconds, lambda session: secret.remove(session, app.name, name)
    )
    if not existed:
        raise NotFound(
            f"there is no secret {name} of {app.name}", hint="imm secret list shows those that are set"
        )
    if asked.json:
        _print_json({"app": app.name, "secret": name, "removed": True})
    else:
        print(f"{name} is removed")


@proxy_cli.command("up", epilog=GLOBAL_OPTIONS)
def proxy_up(
    kind: Annotated[str | None, typer.Option("--kind", help="nginx (default) or traefik.")] = None,
    bind: Annotated[
        str | None, typer.Option("--bind", help="The address to listen on (default: 127.0.0.1).")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", min=1, max=65535, help="Default: 8080.")
    ] = None,
    https_port: Annotated[int | None, typer.Option("--https-port", hidden=True)] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Where apps' subnets come from (10.201.0.0/16).")
    ] = None,
) -> None:
    """Start the host's proxy, or change how it runs; its apps stay."""
    from immutable_local import making

    if https_port is not None:
        raise UsageError("--https-port: not supported yet", code="not_supported", hint="leave it out")
    change = {"kind": kind, "bind": bind, "http_port": http_port, "pool": pool}
    wanted = making.checked({key: value for key, value in change.items() if value is not None})
    tell = _teller()
    with _interruptible(tell):
        ready = making.ensure(_begun(), tell.warn, wanted)
        ready.close()
    _tell_proxy(
        {
            "kind": ready.asked.kind,
            "state": "running",
            "bind": ready.asked.bind,
            "port": ready.asked.http_port,
        }
    )


@proxy_cli.command("status", epilog=GLOBAL_OPTIONS)
def proxy_status() -> None:
    """Whether the proxy runs, where it listens, and which apps it serves."""
    from immutable_local.status import of_proxy

    _tell_proxy(of_proxy(_engine()))


@proxy_cli.command("down", epilog=GLOBAL_OPTIONS)
def proxy_down(
    force: Annotated[bool, typer.Option("--force", help="Also when apps are live behind it.")] = False,
) -> None:
    """Remove the proxy and its sidecar; apps' data, secrets and history stay."""
    from immutable_local import making
    from immutable_local.status import of_proxy
    from immutable_local.unbroken import unbroken

    engine = _engine()
    apps = of_proxy(engine).get("apps") or []
    if apps and not force:
        raise UsageError(
            f"live behind the proxy: {', '.join(apps)}; nothing was touched",
            code="apps_live",
            hint="take them off first with imm down, or imm proxy down --force: then nobody reaches them",
        )
    with _interruptible(_teller()):
        try:
            removed = unbroken(making.take_down, engine)
        except KeyboardInterrupt as late:
            raise ImmError(
                "interrupted when the proxy was already being removed, which was then done",
                code="interrupted",
                still="nobody reaches what was live behind it; volumes, secrets and history are kept",
                hint="imm proxy up (or imm up) starts it again",
            ) from late
    if asked.json:
        _print_json({"removed": removed})
    else:
        print(
            f"removed {', '.join(removed)}; volumes and history are kept" if removed else "there is no proxy"
        )


def main(command: str | None = None, begun: Callable[[], Begun] | None = None) -> NoReturn:
    """Everything that leaves here is an exit code of the contract's. `begun`: the host, if it was begun."""
    asked.command, asked.begun = command, begun
    _open_streams()
    try:
        code = cli(_globals_first(sys.argv[1:]), standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except ImmError as error:
        _fail(error)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except TyperException as wrong:
        context = getattr(wrong, "ctx", None)
        path = context.command_path if context else "imm"
        if type(wrong).__name__ == "NoArgsIsHelpError":
            if not asked.json:
                print(wrong.format_message(), file=sys.stderr)
                sys.exit(UsageError.exit_code)
            wrong = TyperException(f"{path}: a command is missing")
        _fail(UsageError(wrong.format_message(), hint=f"{path} --help"))
    except (KeyboardInterrupt, typer.Abort):
        _fail(ImmError("interrupted", code="interrupted", hint="run the command again"))
    except BrokenPipeError:
        _nobody_reads()
        sys.exit(BROKEN_PIPE)
    except Exception as unexpected:
        if asked.debug:
            raise
        if COMPLETING in os.environ:
            # A shell asks while somebody types: what is told would stand in the middle of that line.
            sys.exit(ImmError.exit_code)
        _fail(_unexpected(unexpected))
    finally:
        # Else Python's end looks through all that was imported once more, which takes 20 ms.
        gc.freeze()


def _open_streams() -> None:
    """Whoever starts imm may have closed them, or read letters that aren't imm's."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _nobody_reads() -> None:
    """What is still printed goes nowhere; so does what Python itself writes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(failed: Exception) -> ImmError:
    if isinstance(failed, OSError):
        where = f" ({failed.filename})" if failed.filename else ""
        return ImmError(
            f"this machine refused: {failed.strerror or failed}{where}",
            code="machine_refused",
            hint="see its permissions and its free space, then run the command again",
        )
    return ImmError(
        f"imm met something it doesn't know: {type(failed).__name__}: {failed}",
        code="bug",
        hint="please report it with what imm --debug shows",
    )


def _globals_first(arguments: list[str]) -> list[str]:
    """The options that every command takes, moved to the front: `imm up --json` is `imm --json up`.

    `logs -f` keeps its `-f`: there it follows. What is wrong with the others is told as JSON, too.
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ALONE or word.startswith("--file="):
            front.append(word)
            asked.json |= word == "--json"
        elif word == "--file" or (word.startswith("-f") and rest[:1] != ["logs"]):
            front.append(word)
            if word in ("--file", "-f"):
                value = next(words, None)
                if value is None:
                    raise UsageError(f"{word}: which file?", hint=f"imm {word} FOLDER/imm.toml")
                front.append(value)
        else:
            rest.append(word)
    return front + rest


def _fail(error: ImmError) -> NoReturn:
    if asked.debug and error.__traceback__ is not None:
        import traceback

        traceback.print_exception(error)
    # Whether anybody can hear it doesn't change how it ended.
    with suppress(OSError):
        _terminal().error(error)
    try:
        if asked.json and not error.told:
            _print_json(_failed(error) if asked.command in WITH_A_RESULT else {"error": error.as_json()})
        sys.stdout.flush()
    except OSError:
        _nobody_reads()
    sys.exit(error.exit_code)


def _failed(error: ImmError, tell: Teller | None = None, app: str = "") -> dict[str, Any]:
    """The last line of JSON of a deployment that failed."""
    from immutable_local.events import Result
    from immutable_local.render import result_json

    if tell is None:
        return result_json(Result("failed", error=error), app)
    return result_json(Result("failed", tell.release, tell.previous, tell.seconds, error=error), app)


def _app(to_build: bool = False) -> tuple[App, Path]:
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


def _engine() -> Engine:
    from immutable_local.engine import connect

    return connect()


def _terminal() -> Terminal:
    from immutable_local.render import Terminal

    return Terminal(quiet=asked.quiet, color=asked.color)


def _begun() -> Begun:
    """The host as it is. Raises what stands in the way of asking it."""
    from immutable_local import host

    return asked.begun() if asked.begun else host.begin(_engine())


def _teller() -> Teller:
    from immutable_local.events import Teller

    return Teller(_terminal().hear)


def _deploy(command: Callable[[Begun, App, Path, Teller], Result], to_build: bool = False) -> None:
    """Run a deployment, showing its steps; its result is the last thing said, also of a wrong imm.toml."""
    from immutable_local import render
    from immutable_local.events import Teller

    terminal = _terminal()
    tell = Teller(terminal.hear)
    name = ""
    try:
        with _interruptible(tell):
            app, folder = _app(to_build)
            name = app.name
            if asked.json:
                tell.listener = render.JsonLines(name, terminal).hear
            result = command(_begun(), app, folder, tell)
    except (Exception, KeyboardInterrupt) as failed:
        if isinstance(failed, KeyboardInterrupt):
            error = _interrupted(tell)
        else:
            error = failed if isinstance(failed, ImmError) else _unexpected(failed)
        error.still = error.still or tell.reached or tell.stands
        if asked.json:
            try:
                render.print_json(_failed(error, tell, name))
            except OSError:
                # Nobody reads it there: its code, and its words on standard error, still count.
                _nobody_reads()
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
        _nobody_reads()


@contextmanager
def _interruptible(
    tell: Teller, left: str = UNDONE, hint: str = "imm status shows what is live"
) -> Iterator[None]:
    """SIGTERM and SIGHUP undo as Ctrl-C does. Raises ImmError when they have: then `left` is true.

    Once it is over, one way or the other, they come too late: the process only tells how it ended.
    """
    # Who ignores it already was started by nohup.
    numbers = [each for each in ENDING if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]

    def ignore() -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)

    def interrupt(number: int, frame: Any) -> None:
        # Whoever is impatient doesn't cut the undoing short.
        ignore()
        raise KeyboardInterrupt

    for each in numbers:
        signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise _interrupted(tell, left, hint) from stopped
    finally:
        # What is over is told, and as what it was.
        ignore()


def _interrupted(tell: Teller, left: str = UNDONE, hint: str = "imm status shows what is live") -> ImmError:
    if tell.reached:
        return ImmError(
            f"interrupted after the flip: {tell.reached}",
            code="interrupted",
            hint="what is left to retire is swept by the next imm up, revert, prune or down",
        )
    if not tell.undone:
        return ImmError(
            "interrupted; what wasn't live could not be undone",
            code="interrupted",
            hint="the next imm up, revert, prune or down sweeps it",
        )
    return ImmError(f"interrupted; {left}", code="interrupted", hint=hint)


def _with_lock(begun: Begun, app: str, command: str, wait: float, act: Callable[[Any], bool]) -> bool:
    from immutable_local import lock, making

    tell = _teller()
    with _interruptible(
        tell, f"{command} may be done, or not", "imm secret list tells since when each is set"
    ):
        ready = making.ensure(begun, tell.warn)
        try:
            lock.take(ready.session, app, command, wait)
            return act(ready.session)
        finally:
            ready.close()


def _secret_value(name: str, from_file: Path | None) -> bytes:
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
        return str(typer.prompt(f"value of {name}", hide_input=True, err=True)).encode()
    value = sys.stdin.buffer.read(most)
    # `echo secret | imm secret set X` means the word, not the line's end.
    return value[:-1] if value.endswith(b"\n") else value


def _seconds(text: str) -> float:
    from immutable_local.config.units import seconds

    hint = "write 30s, 5m or 1h"
    try:
        found = seconds(text)
    except ValueError as wrong:
        raise UsageError(f"--wait {shown(text)}: not a duration", hint=hint) from wrong
    if found > LONGEST_WAIT_SECONDS:
        raise UsageError(f"--wait {shown(text)}: nobody waits for so long", hint=hint)
    return found


def _tell_proxy(told: dict[str, Any]) -> None:
    if asked.json:
        _print_json(told)
    elif told["state"] == "absent":
        print("there is no proxy on this host (imm up or imm proxy up starts it)")
    else:
        print(f"{told['kind']} is {told['state']} on {told['bind']}:{told['port']}")
        for app in told.get("apps") or []:
            print(f"  {app}")


def _print_json(told: Any) -> None:
    from immutable_local.render import print_json

    print_json(told)

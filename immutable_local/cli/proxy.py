"""`imm proxy`: up, status, down."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from immutable_local.cli.ending import interruptible, print_json
from immutable_local.cli.options import GLOBAL_OPTIONS, Commands, asked
from immutable_local.cli.running import new_teller, the_engine, the_host
from immutable_local.errors import ImmError, UsageError

proxy_cli = typer.Typer(
    cls=Commands, help="The host's proxy, shared by all apps.", no_args_is_help=True, epilog=GLOBAL_OPTIONS
)


@proxy_cli.command("up", epilog=GLOBAL_OPTIONS)
def proxy_up(
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="nginx or traefik (default: nginx).")
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option("--bind", metavar="ADDRESS", help="The address to listen on (default: 127.0.0.1)."),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            "--http-port", metavar="PORT", min=1, max=65535, help="The port to listen on (default: 8080)."
        ),
    ] = None,
    https_port: Annotated[int | None, typer.Option("--https-port", hidden=True)] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool", metavar="SUBNET", help="Where apps' subnets come from (default: 10.201.0.0/16)."
        ),
    ] = None,
) -> None:
    """Start the host's proxy, or change how it runs; its apps stay."""
    from immutable_local import making

    if https_port is not None:
        raise UsageError("--https-port: not supported yet", code="not_supported", hint="leave it out")
    change = {"kind": kind, "bind": bind, "http_port": http_port, "pool": pool}
    wanted = making.checked({key: value for key, value in change.items() if value is not None})
    tell = new_teller()
    with interruptible(tell):
        ready = making.ensure(the_host(), tell.warn, wanted)
        ready.close()
    _tell(
        {
            "kind": ready.asked.kind,
            "state": "running",
            "bind": ready.asked.bind,
            "port": ready.asked.http_port,
            "pool": ready.asked.pool,
        }
    )


@proxy_cli.command("status", epilog=GLOBAL_OPTIONS)
def proxy_status() -> None:
    """Whether the proxy runs, where, and for which apps."""
    from immutable_local.status import of_proxy

    _tell(of_proxy(the_engine()))


@proxy_cli.command("down", epilog=GLOBAL_OPTIONS)
def proxy_down(
    force: Annotated[
        bool, typer.Option("--force", help="Also when apps are live behind it: nobody reaches them then.")
    ] = False,
) -> None:
    """Remove the proxy and its sidecar.

    Apps' data, secrets and history stay.
    """
    from immutable_local import making
    from immutable_local.status import of_proxy
    from immutable_local.unbroken import unbroken

    engine = the_engine()
    # Whoever says so isn't asked: what is broken may be what tells which apps are live.
    apps = [] if force else of_proxy(engine).get("apps") or []
    if apps:
        raise UsageError(
            f"live behind the proxy: {', '.join(apps)}; nothing was touched",
            code="apps_live",
            hint="take them off first with imm down, or imm proxy down --force: then nobody reaches them",
        )
    tell = new_teller()
    with interruptible(tell):
        try:
            removed = unbroken(making.take_down, engine, tell.warn)
        except KeyboardInterrupt as late:
            raise ImmError(
                "interrupted when the proxy was already being removed, which was then done",
                code="interrupted",
                still="nobody reaches what was live behind it; volumes, secrets and history are kept",
                hint="imm proxy up (or imm up) starts it again",
            ) from late
    if asked.json:
        print_json({"removed": removed})
    else:
        print(
            f"removed {', '.join(removed)}; volumes and history are kept" if removed else "there is no proxy"
        )


def _tell(told: dict[str, Any]) -> None:
    if asked.json:
        print_json(told)
    elif told["state"] == "absent":
        print("there is no proxy on this host (imm up or imm proxy up starts it)")
    else:
        print(f"{told['kind']} is {told['state']} on {told['bind']}:{told['port']}")
        print(f"apps' networks come from {told['pool']}")
        for app in told.get("apps") or []:
            print(f"  {app}")

"""Is all there that imm needs: engine, permissions, images, proxy, port, disk; and what to do if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from immutable_local.errors import ImmError

LEAST_FREE_BYTES = 1024**3
OLDEST_API = (1, 41)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `exit_code` is the command's when it isn't as it should be."""

    what: str
    ok: bool
    found: str
    hint: str = ""
    exit_code: int = 1


def examine() -> list[Finding]:
    """Everything looked at, in the order it is needed; ends at the first that makes the rest moot."""
    from immutable_local.engine import connect

    try:
        engine = connect()
        version = engine.version()
    except ImmError as failed:
        return [Finding("engine", False, failed.message, failed.hint, failed.exit_code)]
    return [*_engine(version, engine.named), *_builder(), *_host(engine)]


def _engine(version: dict[str, Any], named: str) -> Iterator[Finding]:
    api = tuple(int(part) for part in version["ApiVersion"].split("."))
    yield Finding(
        "engine",
        api >= OLDEST_API,
        f"Docker {version['Version']} at {named}",
        "imm needs Docker Engine 20.10 or newer",
    )


def _builder() -> Iterator[Finding]:
    from immutable_local.image import buildkit_program

    program = buildkit_program()
    found = (
        f"BuildKit, by {program}"
        if program
        else "the engine's own builder (slower: install docker's buildx plugin)"
    )
    yield Finding("builder", True, found)


def _host(engine: Any) -> Iterator[Finding]:
    from immutable_local import host, making

    asked = host.Asked()
    for what, candidates in (
        ("proxy image", making.proxy_images(asked)),
        ("sidecar image", making.PYTHON_IMAGES),
    ):
        present = next((each for each in candidates if engine.image(each) is not None), None)
        yield Finding(what, True, present or f"{candidates[-1]} (will be pulled)")
    found = host.find(engine)
    proxy = found.get("proxy")
    if proxy is None:
        yield Finding("proxy", True, "not started yet: imm up or imm proxy up starts it")
        yield from _free(engine)
        return
    try:
        ready = host.attach(engine)
    except ImmError as failed:
        yield Finding("proxy", False, failed.message, "imm proxy up puts it right")
        return
    if ready is None:
        yield Finding(
            "proxy",
            False,
            f"the proxy is {proxy.state}, its sidecar may be missing",
            "imm proxy up puts it right",
        )
        return
    try:
        told = ready.session.ask("hello")
        yield Finding(
            "proxy",
            bool(told["interfaces"]),
            f"{ready.asked.kind} on {ready.asked.bind}:{ready.asked.http_port}",
            "imm proxy up puts it right",
        )
        yield _disk(told["free"])
    finally:
        ready.close()


def _free(engine: Any) -> Iterator[Finding]:
    """Without a sidecar the engine is asked by a container of a moment."""
    from immutable_local import making

    try:
        image = next((each for each in making.PYTHON_IMAGES if engine.image(each) is not None), None)
        if image is None:
            return
        told = engine.run_once(image, ["python3", "-c", "import shutil; print(shutil.disk_usage('/').free)"])
        yield _disk(int(told))
    except (ImmError, ValueError) as failed:
        yield Finding("disk", False, f"could not be looked at: {failed}", "see docker info")


def _disk(free: int) -> Finding:
    return Finding(
        "disk",
        free >= LEAST_FREE_BYTES,
        f"{free / 1024**3:.1f} GiB free under the engine's data",
        "free space: imm prune, docker system df",
    )

"""The entry point, before anything is imported: an interruption meanwhile is told like any other."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from immutable_local.host import Begun

# What is imported stays: to look through it again and again while it is imported takes 15 ms.
OBJECTS_UNTIL_LOOKED_THROUGH = 100_000
# What these ask of the sidecar takes a while to be ready: it starts while the command line is loaded.
WITH_A_SESSION = {"up", "revert", "down", "status", "history"}
# `imm proxy up` may have to make what a session needs; who asks for help needs none.
WITHOUT = {"proxy", "-h", "--help", "--version"}


def main() -> None:
    """Load the command line and run it."""
    gc.set_threshold(OBJECTS_UNTIL_LOOKED_THROUGH)
    words = set(sys.argv[1:])
    try:
        begun = begin() if words & WITH_A_SESSION and not words & WITHOUT else None
        from immutable_local.cli import main as run
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing was touched\n  next: run the command again")
    run(begun)


def begin() -> Begun | Exception:
    """The host, or what stands in its way: that is told after what is wrong with the command or imm.toml."""
    try:
        from immutable_local import host
        from immutable_local.engine import connect

        return host.begin(connect())
    except Exception as unreachable:
        return unreachable


if __name__ == "__main__":
    main()

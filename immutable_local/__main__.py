"""The entry point, before anything is imported: an interruption meanwhile is told like any other."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from immutable_local.host import Begun

# What is imported stays: to look through it again and again while it is imported takes 15 ms.
OBJECTS_UNTIL_LOOKED_THROUGH = 100_000
# What these ask of the sidecar takes a while to be ready: it starts while the command line is loaded.
WITH_A_SESSION = ("up", "revert", "down", "status", "history")
HELP = ("-h", "--help", "--version")
WITH_A_VALUE = ("-f", "--file")


def main() -> None:
    """Load the command line and run it."""
    gc.set_threshold(OBJECTS_UNTIL_LOOKED_THROUGH)
    words = sys.argv[1:]
    try:
        word = command(words)
        begun = begin() if word in WITH_A_SESSION and not set(words) & set(HELP) else None
        from immutable_local.cli import main as run
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing was touched\n  next: run the command again")
    run(word, begun)


def command(words: list[str]) -> str | None:
    """The first word that is no option; whether it is a command, and all is well with it, is asked later."""
    before = ""
    for word in words:
        if not word.startswith("-") and before not in WITH_A_VALUE:
            return word
        before = word
    return None


def begin() -> Callable[[], Begun]:
    """Reach for the host, and go on: what the user can correct at once is told first."""
    from immutable_local import early
    from immutable_local.unbroken import ahead

    reached = ahead(early.reach)

    from immutable_local import host
    from immutable_local.engine import connect

    def reach() -> Begun:
        known = reached()
        engine = connect(known.api if known else None)
        if known is not None and not known.is_of(engine.local):
            known.forget()
            engine, known = connect(), None
        return host.begin(engine, known)

    return ahead(reach)


if __name__ == "__main__":
    main()

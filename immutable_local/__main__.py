"""The entry point, before anything is imported: an interruption meanwhile is told like any other."""

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from immutable_local.cli import main as run
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing was touched\n  next: run the command again")
    run()


if __name__ == "__main__":
    main()

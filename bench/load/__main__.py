"""`python -m bench.load http://127.0.0.1:8080 --host sample.localhost busy=4 idle=20 --seconds 10`"""

import argparse
import sys
import time

from rich.console import Console

from bench.load.process import Load
from bench.load.settings import SHAPES
from bench.load.table import losses, table


def main() -> int:
    """Load an address for a time and print the account; 1 when something was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("url", help="a loopback address")
    parser.add_argument("shapes", nargs="+", metavar="SHAPE=CLIENTS", help=", ".join(SHAPES))
    parser.add_argument("--host", help="for the Host header")
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    try:
        shapes = {shape: int(clients) for shape, _, clients in (text.partition("=") for text in asked.shapes)}
        load = Load(asked.url, host=asked.host, shapes=shapes, seconds=asked.seconds)
    except ValueError as refused:
        parser.error(str(refused))
    with load:
        while load.progress().why is None:
            time.sleep(0.1)
        report = load.stop()
    console = Console()
    console.print(table(report))
    for line in losses(report):
        console.print(f"lost {line}", style="red", markup=False)
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())

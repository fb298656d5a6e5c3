"""A report as a table for people."""

from collections import Counter

from rich.table import Table

from bench.load.report import Report


def table(report: Report) -> Table:
    """Each shape with what it sent, what it lost, and how long its answers took."""
    drawn = Table(title_justify="left")
    for heading in ("load", "clients", "sent", "lost", "p50 ms", "p99 ms", "slowest ms"):
        drawn.add_column(heading, justify="left" if heading == "load" else "right")
    for shape in report.shapes:
        took, lost = shape.latencies(), len(shape.losses)
        drawn.add_row(
            shape.shape,
            str(shape.clients),
            f"{shape.sent:,}",
            f"[bold red]{lost:,}[/]" if lost else "0",
            *(f"{seconds * 1000:,.1f}" for seconds in (took.p50, took.p99, took.max)),
        )
    return drawn


def losses(report: Report, most: int = 20) -> list[str]:
    """The losses in words, alike ones together; moments are in seconds from the start of the load."""
    alike = Counter((loss.shape, loss.cause) for loss in report.losses)
    said = []
    for (shape, cause), number in alike.most_common(most):
        moments = [
            loss.at - report.began for loss in report.losses if (loss.shape, loss.cause) == (shape, cause)
        ]
        when = f"at {moments[0]:.2f} s"
        if number > 1:
            when = f"from {moments[0]:.2f} to {moments[-1]:.2f} s"
        said.append(f"{number} of {shape}: {cause}, {when}")
    return said

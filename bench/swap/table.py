"""Runs as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from bench.swap.figures import Run, middle, share

# What a flip should take: medians in milliseconds, from the change of the live state to the first answer, and
# of the whole step.
GOALS = {"nginx": (5.0, 150.0), "traefik": (150.0, 400.0)}


def table(run: Run) -> Table:
    """Each shape with what it sent and lost, and how long its answers took, in between and during swaps."""
    drawn = Table(title=_title(run), title_justify="left", title_style="bold")
    headings = ("load", "clients", "sent", "lost", "p50 ms", "during swaps", "p99 ms", "during swaps")
    for heading in headings:
        drawn.add_column(heading, justify="left" if heading == "load" else "right")
    for each in run.shapes:
        drawn.add_row(
            each.name,
            str(each.clients),
            f"{each.sent:,}",
            f"[bold]{each.lost:,}[/]" if each.lost else "0",
            f"{each.steady.p50 * 1000:,.1f}",
            f"{each.swapping.p50 * 1000:,.1f}",
            f"{each.steady.p99 * 1000:,.1f}",
            f"{each.swapping.p99 * 1000:,.1f}",
        )
    return drawn


def said(run: Run, most: int = 20) -> Iterator[str]:
    """Flips, the processors' time, and what was lost."""
    firsts, flips = run.first_answers, run.flips
    if flips:
        live_goal, step_goal = GOALS[run.name]
        yield (
            f"live state changed to first answer of the new container: {_spread(firsts)}"
            f" ({len(firsts)} of {len(run.swaps)} swaps; goal {live_goal:g})"
        )
        yield f"whole flip step, with its confirmation: {_spread(flips)} (goal {step_goal:g})"
        whole = [each.ended - each.began for each in run.swaps]
        yield f"whole swap, from the command to its end: {_spread(whole)}"
    spent, seconds = run.spent, run.report.ended - run.report.began
    yield (
        f"the load generator used {share(spent.load, seconds):.0%} of its core; all {spent.cores} cores were"
        f" {share(spent.used, spent.there):.0%} busy: load {share(spent.load, spent.there):.0%}, commands"
        f" {share(spent.commands, spent.there):.0%}, the rest proxy, app and engine"
    )
    lost = list(run.losses())
    yield from (f"lost {each}" for each in lost[:most])
    if len(lost) > most:
        yield f"and {len(lost) - most:,} more"


def _title(run: Run) -> str:
    what = "must lose" if run.must_lose else "must lose nothing"
    return (
        f"{run.name} ({what}): {len(run.swaps)} swaps, {run.sent:,} requests,"
        f" {run.lost:,} lost, in {run.report.ended - run.report.began:.0f} s"
    )


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "never"
    return f"median {middle(seconds):g} ms, {min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f}"

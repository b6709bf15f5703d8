"""The table of the command plan: one line an entry, its passes, memory and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from ....methods.base import Estimate
from ..terminal import amount, console, duration

WIDTH = 110  # of the table where the terminal is narrower, so that no number is cut
COUNTS = ("forward", "trained", "per-sample gradients", "memory")
UNKNOWN = "unknown"  # where a method gives no estimate


def print_table(title: str, times: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print lines of an entry's name, its counts, and as many times as are named."""
    table = Table(title=title)
    for name in ("cell", *COUNTS, *times):
        table.add_column(name, justify="left" if name == "cell" else "right", no_wrap=name == "cell")
    for line in lines:
        table.add_row(*line)
    Console(width=max(console.width, WIDTH), highlight=False).print(table)


def counted(estimates: Sequence[Estimate | None]) -> list[str]:
    """Return the passes of cells in all, and the memory of the largest."""
    known = [one for one in estimates if one is not None]
    if len(known) < len(estimates):
        return [UNKNOWN] * len(COUNTS)
    passes = [f"{sum(getattr(one, way) for one in known):,}" for way in ("forward", "trained", "per_sample")]
    return [*passes, amount(max(one.bytes for one in known))]


def timed(seconds: Sequence[float | None]) -> str:
    """Return the time of cells in all."""
    known = [one for one in seconds if one is not None]
    return duration(sum(known)) if len(known) == len(seconds) else UNKNOWN

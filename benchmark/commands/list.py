"""The command list: tasks and methods; no torch."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ...methods.registry import checked_listings
from ..tasks.find import task_names
from .terminal import plain


def show(plugins: tuple[Path, ...]) -> None:
    """Print tasks and methods."""
    plain.print("tasks: " + ", ".join(task_names()))
    table = Table("method", "presets", "needs", "what it is")
    for listing in checked_listings(plugins).values():
        table.add_row(listing.name, ", ".join(listing.presets), ", ".join(listing.needs), listing.summary)
    plain.print(table)

"""The command list: tasks, datasets and methods; no torch."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ...datasets.find import dataset_listings
from ...methods.registry import listings
from ..tasks.find import task_names
from .terminal import plain


def show(plugins: tuple[Path, ...]) -> None:
    """Print tasks, datasets and methods."""
    plain.print("tasks: " + ", ".join(task_names(plugins)), soft_wrap=True)
    plain.print("datasets: " + ", ".join(sorted(dataset_listings(plugins))), soft_wrap=True)
    table = Table("method", "presets", "needs", "what it is")
    for listing in listings(plugins).values():
        table.add_row(listing.name, ", ".join(listing.presets), ", ".join(listing.needs), listing.summary)
    plain.print(table)

"""The command plan: what each cell would cost."""

from __future__ import annotations

from rich.table import Table

from ..run.forecast import Forecast
from ..run.plan import PlannedCell
from .session import check_device, forecasts
from .terminal import console, duration


def plan(cells: list[PlannedCell], device: str) -> None:
    """Print what each cell would cost."""
    check_device(device)
    table = Table(title=f"{cells[0].key.task}@{cells[0].key.task_version}, {len(cells[0].query_ids)} queries, {device}")
    for name in ("cell", "forward", "trained", "per-sample gradients", "memory", "time"):
        table.add_column(name, justify="left" if name == "cell" else "right")
    found = forecasts(cells, device)
    for item in found:
        table.add_row(*_line(item))
    console.print(table)
    total = sum(item.seconds or 0.0 for item in found)
    console.print(f"about {duration(total)} on one core or device, once started; passes are images through the network")


def _line(item: Forecast) -> list[str]:
    name = str(item.planned.entry)
    if item.estimate is None or item.seconds is None:
        return [name, *["unknown"] * 5]
    counts = [f"{count:,}" for count in (item.estimate.forward, item.estimate.trained, item.estimate.per_sample)]
    return [name, *counts, f"{item.estimate.bytes / 2**20:,.0f} MiB", duration(item.seconds)]

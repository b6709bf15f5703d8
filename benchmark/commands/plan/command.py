"""What each cell of a task with truth would cost, and the cells that metrics add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from ....errors import unknown
from ....methods.registry import Entry
from ...run.forecast import Forecast
from ...run.plan import PlannedCell, check_device
from ...tasks.spec import TaskSpec
from ..exemplars.metric import plan_exemplars
from ..sanity import plan_sanity
from ..session import forecasts
from ..terminal import console, total
from .table import counted, print_table, timed

OWN_CELLS: dict[str, Callable[[TaskSpec, list[PlannedCell]], list[PlannedCell]]] = {
    "sanity": lambda spec, cells: plan_sanity(cells),
    "exemplars": plan_exemplars,
}


def parse_metrics(metrics: list[str]) -> list[str]:
    """Return the metrics that take cells of their own, each once; raises UserError for others."""
    for name in metrics:
        if name not in OWN_CELLS:
            raise unknown("metric with cells of its own:", name, OWN_CELLS)
    return list(dict.fromkeys(metrics))


def cells_beside(spec: TaskSpec, cells: list[PlannedCell], metrics: Sequence[str]) -> dict[str, list[PlannedCell]]:
    """Return stand-ins for the cells that metrics add to these, by metric."""
    return {name: OWN_CELLS[name](spec, cells) for name in metrics}


def plan(cells: list[PlannedCell], device: str, beside: Mapping[str, list[PlannedCell]]) -> None:
    """Print what each cell would cost, and by entry all the cells that a metric adds."""
    check_device(device)
    found = forecasts([*cells, *(cell for added in beside.values() for cell in added)], device)
    lines = [[str(item.planned.entry), *_costs([item])] for item in found[: len(cells)]]
    rest = iter(found[len(cells) :])
    for name, added in beside.items():
        by_entry: dict[Entry, list[Forecast]] = {}
        for item in islice(rest, len(added)):
            by_entry.setdefault(item.planned.entry, []).append(item)
        lines += [[f"{entry}, {name} x{len(items)}", *_costs(items)] for entry, items in by_entry.items()]
    key = cells[0].key
    print_table(f"{key.label}, {len(cells[0].query_ids)} queries, {device}", ["time"], lines)
    time = total([item.seconds for item in found])
    console.print(f"{time} on one core or device, once started; passes are images through the network")


def _costs(items: Sequence[Forecast]) -> list[str]:
    return [*counted([item.estimate for item in items]), timed([item.seconds for item in items])]

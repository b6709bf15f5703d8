"""A budget: methods' parameters made smaller until they fit into minutes and memory, and what was given up by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...methods.registry import params_from_json, params_json
from ...seeds import digest
from ..run.forecast import Forecast, forecast
from ..run.plan import PlannedCell
from .cells import SHARE, Cells, room
from .problem import store

FORMAT = 1  # bumped when budgets are met in another way
LEAST = {"draws": 1, "max_steps": 5, "proj_dim": 256, "batch": 8}  # below these scores are noise
FOR_TIME, FOR_MEMORY = ("draws", "max_steps", "batch"), ("proj_dim", "draws")


@dataclass(frozen=True)
class Fit:
    """What a budget leaves: parameters by entry as JSON values, why entries do not fit, and what was given up."""

    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    too_large: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def fitted(cells: Cells) -> Cells:
    """Return the cells with parameters that fit the request's minutes and memory.

    What was chosen once is kept with the problem, since it depends on how fast the machine happened to be: the same
    request again, after a kill too, is the same cells.
    """
    request, options = cells.made.request, cells.options
    if not (request.minutes or request.memory) or not cells.possible:
        return cells
    identities = [cell.identity for cell in cells.possible]
    asked = [FORMAT, identities, request.minutes, request.memory, options.device, options.jobs, options.micro_batch]
    key = f"budgets/{digest(asked)}.json"
    if not store().exists(key):
        store().put_json(key, asdict(_fit(cells)))
    found = Fit(**store().get_json(key))
    classes = {str(cell.entry): cell.cls for cell in cells.possible}
    params = {entry: params_from_json(classes[entry], values) for entry, values in found.params.items()}
    return replace(cells, params=params, too_large=found.too_large, notes=tuple(found.notes))


def _fit(cells: Cells) -> Fit:
    request, problem = cells.made.request, cells.rates
    first = [cell for cell in cells.possible if cell.key.seed == request.seeds[0]]
    chosen = {str(item.planned.entry): item for item in forecast(first, *problem)}
    too_large: dict[str, str] = {}
    if request.memory:
        beside = room(cells.made, cells.options.jobs)
        left = beside * (1 - 1 / SHARE)  # passes have their share
        for entry in list(chosen):
            chosen[entry] = smallest = _shrunk(chosen[entry], FOR_MEMORY, left, problem)
            if _bytes(smallest) > left:
                missing = (_bytes(smallest) - left) / (1 - 1 / SHARE) * cells.options.jobs
                need = request.memory + missing / 2**30
                too_large[entry] = f"takes {need:.1f} GiB at the least: give it --memory {need + 0.1:.1f}GB or --jobs 1"
                del chosen[entry]
    if request.minutes:
        limit = 60 * request.minutes * cells.options.jobs / len(request.seeds)
        too_large |= _within(chosen, limit, problem, cells)
    params = {entry: params_json(item.planned.params) for entry, item in chosen.items()}
    before = {str(cell.entry): params_json(cell.params) for cell in first}
    return Fit(params, too_large, list(_given_up(before, params, request.minutes, request.memory)))


def _within(chosen: dict[str, Forecast], limit: float, problem: Any, cells: Cells) -> dict[str, str]:
    """Shrink what takes longest until all take no more than ``limit`` seconds together, and take out what cannot."""
    too_large: dict[str, str] = {}
    while chosen and (total := sum(item.seconds or 0.0 for item in chosen.values())) > limit:
        slowest_first = sorted(chosen, key=lambda entry: -(chosen[entry].seconds or 0.0))
        smaller = ((entry, _smaller(chosen[entry], FOR_TIME, problem)) for entry in slowest_first)
        found = next(((entry, item) for entry, item in smaller if item is not None), None)
        if found is not None:
            chosen[found[0]] = found[1]
            continue
        entry = slowest_first[0]
        minutes = total / 60 / cells.options.jobs * len(cells.made.request.seeds)
        too_large[entry] = f"does not fit: with it, {minutes:.1f} minutes are the least (--minutes)"
        del chosen[entry]
    return too_large


def _shrunk(item: Forecast, names: Sequence[str], limit: float, problem: Any) -> Forecast:
    while _bytes(item) > limit and (smaller := _smaller(item, names, problem)) is not None:
        item = smaller
    return item


def _smaller(item: Forecast, names: Sequence[str], problem: Any) -> Forecast | None:
    """Return the forecast with one of these parameters halved, the one that saves most; None where none can be."""
    options = [replace(item.planned, params=params) for params in _halved(item.planned, names)]
    found = forecast(options, *problem)
    weight = _bytes if names is FOR_MEMORY else _seconds
    best = min(found, key=weight, default=None)
    return best if best is not None and weight(best) < weight(item) else None


def _halved(planned: PlannedCell, names: Sequence[str]) -> Iterator[Any]:
    for name in names:
        value = getattr(planned.params, name, None)
        if isinstance(value, int) and value > LEAST[name]:
            yield replace(planned.params, **{name: max(LEAST[name], value // 2)})


def _bytes(item: Forecast) -> float:
    return item.estimate.bytes if item.estimate else 0.0


def _seconds(item: Forecast) -> float:
    return item.seconds or 0.0


def _given_up(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], minutes: float, memory: float
) -> Iterator[str]:
    """Yield a line for each entry whose parameters were made smaller."""
    limits = [f"{minutes:g} minutes"] * bool(minutes) + [f"{memory:g} GiB"] * bool(memory)
    for entry, params in after.items():
        changed = [name for name in params if params[name] != before[entry].get(name)]
        if changed:
            what = ", ".join(f"{name} {before[entry][name]} -> {params[name]}" for name in changed)
            yield f"to fit {' and '.join(limits)}, {entry} gave up: {what}"

"""A budget: methods' parameters made smaller until they fit into minutes and memory, and what was given up by it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...methods.registry import params_from_json, params_json
from ...seeds import digest
from ..run.forecast import Forecast
from ..run.plan import PlannedCell
from .cells import SHARE, Cells, at_once, room
from .problem import store

FORMAT = 2  # bumped when budgets are met in another way
LEAST = {"draws": 1, "max_steps": 5, "proj_dim": 256, "batch": 8}  # below these scores are noise
SHORTLIST = 256  # images for each picture, or as many as are shown
FOR_TIME, FOR_MEMORY = ("draws", "max_steps", "batch"), ("proj_dim", "draws")


@dataclass(frozen=True)
class Fit:
    """What a budget leaves: parameters by entry as JSON values, why entries do not fit, and what was given up.

    shortlist: how many images of each picture are scored by methods that take long, 0 where that was left as asked.
    """

    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    too_large: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    shortlist: int = 0


def fitted(cells: Cells) -> Cells:
    """Return the cells with parameters, and a shortlist, that fit the request's minutes and memory.

    What was chosen once is kept with the problem, since it depends on how fast the machine happened to be: the same
    request again, after a kill too, is the same cells, unless what was kept was damaged.
    """
    request, options = cells.made.request, cells.options
    if not (request.minutes or request.memory) or not cells.possible:
        return cells
    identities = [cell.identity for cell in cells.possible]
    asked = [FORMAT, identities, request.minutes, request.memory, options.device, options.jobs, options.micro_batch]
    asked += [options.devices] if options.devices else []
    key = f"budgets/{digest(asked)}.json"
    found = _kept(key, cells)
    classes = {str(cell.entry): cell.cls for cell in cells.possible}
    params = {entry: params_from_json(classes[entry], values) for entry, values in found.params.items()}
    more = {"notes": tuple(found.notes), "shortlist": found.shortlist}
    return replace(cells, params=params, too_large=found.too_large, **more)


def _kept(key: str, cells: Cells) -> Fit:
    data = store().kept(key)
    if data is None:
        data = store().put_json(key, asdict(_fit(cells)), sealed=True).read_bytes()
    return Fit(**json.loads(data))


def _fit(cells: Cells) -> Fit:
    """Return what fits; with a shortlist, where that saves methods which would be left out otherwise."""
    found, length = _fit_of(cells), max(SHORTLIST, cells.made.request.top)
    if not found.too_large or cells.listed or not cells.rankers:
        return found
    other = _fit_of(replace(cells, shortlist=length))
    kept = {str(cell.entry) for cell in cells.rankers} - set(other.too_large)
    return replace(other, shortlist=length) if kept and len(other.too_large) < len(found.too_large) else found


def _fit_of(cells: Cells) -> Fit:
    request = cells.made.request
    first = [cell for cell in cells.possible if cell.key.seed == request.seeds[0]]
    chosen = {str(item.planned.entry): item for item in cells.forecasts_of(first)}
    too_large: dict[str, str] = {}
    if request.memory:
        processes = at_once(cells.options)
        beside = room(cells.made, processes)
        left = beside * (1 - 1 / SHARE)  # passes have their share
        for entry in list(chosen):
            chosen[entry] = smallest = _shrunk(chosen[entry], FOR_MEMORY, left, cells)
            if _bytes(smallest) > left:
                missing = (_bytes(smallest) - left) / (1 - 1 / SHARE) * processes
                need = request.memory + missing / 2**30
                too_large[entry] = f"takes {need:.1f} GiB at the least: give it --memory {need + 0.1:.1f}GB or --jobs 1"
                del chosen[entry]
    if request.minutes:
        limit = 60 * request.minutes
        too_large |= _within(chosen, limit, cells)
    params = {entry: params_json(item.planned.params) for entry, item in chosen.items()}
    before = {str(cell.entry): params_json(cell.params) for cell in first}
    return Fit(params, too_large, list(_given_up(before, params, request.minutes, request.memory)))


def _within(chosen: dict[str, Forecast], limit: float, cells: Cells) -> dict[str, str]:
    """Shrink what takes longest until all have run after ``limit`` seconds, and take out what cannot."""
    too_large: dict[str, str] = {}
    seeds = len(cells.made.request.seeds)
    while chosen and (total := spent([_seconds(item) for item in chosen.values()] * seeds, cells.options.jobs)) > limit:
        slowest_first = sorted(chosen, key=lambda entry: -(chosen[entry].seconds or 0.0))
        smaller = ((entry, _smaller(chosen[entry], FOR_TIME, cells)) for entry in slowest_first)
        found = next(((entry, item) for entry, item in smaller if item is not None), None)
        if found is not None:
            chosen[found[0]] = found[1]
            continue
        entry = slowest_first[0]
        too_large[entry] = f"does not fit: with it, {total / 60:.1f} minutes are the least (--minutes)"
        del chosen[entry]
    return too_large


def spent(seconds: Sequence[float], jobs: int) -> float:
    """Return the seconds that cells take, ``jobs`` at a time: at least those of the longest, which has one process."""
    return max([sum(seconds) / jobs, *seconds])


def _shrunk(item: Forecast, names: Sequence[str], limit: float, cells: Cells) -> Forecast:
    while _bytes(item) > limit and (smaller := _smaller(item, names, cells)) is not None:
        item = smaller
    return item


def _smaller(item: Forecast, names: Sequence[str], cells: Cells) -> Forecast | None:
    """Return the forecast with one of these parameters halved, the one that saves most; None where none can be."""
    options = [replace(item.planned, params=params) for params in _halved(item.planned, names)]
    found = cells.forecasts_of(options)
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

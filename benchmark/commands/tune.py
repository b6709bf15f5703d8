"""Choosing parameters on dev queries and open subsets, with the choice's own cost on record."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from ...errors import UserError, unknown
from ...leaderboard.rows.row import Row
from ...methods.base import Method
from ...methods.registry import Entry, listings, method_class, params_hash, preset_params
from ...seeds import numpy_generator
from ..run.plan import PlannedCell, plan_cells
from ..run.results import Results
from ..tasks.spec import find_task, open_assets
from .run import options, run_cells
from .terminal import console, duration


def tune(
    name: str,
    task: str,
    preset: str,
    trials: int,
    only: list[str],
    folder: Path,
    plugins: tuple[Path, ...],
    device: str,
    jobs: int,
) -> None:
    """Try settings of a method's search space and print the table and the parameters of the best."""
    if trials < 0:
        raise UserError("--trials must not be negative: 0 tries the whole grid")
    spec = find_task(task)
    assets = open_assets(spec)
    cls = method_class(name, plugins)
    settings = grid(cls, preset_params(cls, preset), only, trials)
    known = listings(plugins)
    entry = Entry(name, preset)
    if preset not in known[name].presets:
        raise unknown(f"preset of {name!r}:", preset, known[name].presets)
    cells = [plan_cells(spec, assets, [entry], [0], "dev", plugins, {name: params})[0] for params in settings]
    rows = run_cells(cells, Results(folder), options(device, jobs, 3600.0, 0.0, 512, False, False))
    _report(cells, rows, settings)


def grid(cls: type[Method], start: Any, only: list[str], trials: int) -> list[Any]:
    """Return the start and the points of the search space, thinned to ``trials`` by a fixed draw.

    Raises UserError for a method without a search space or a parameter outside it.
    """
    space = dict(cls.search)
    for name in only:
        if name not in space:
            raise unknown(f"tunable parameter of {cls.name!r}:", name, space)
    names = only or list(space)
    if not names:
        raise UserError(f"method {cls.name!r} declares no search space: nothing to tune")
    points = [
        replace(start, **dict(zip(names, values, strict=True)))
        for values in itertools.product(*(space[n] for n in names))
    ]
    order = numpy_generator("tune", cls.name).permutation(len(points))
    kept = [points[i] for i in order[: trials or None]]
    return list({params_hash(params): params for params in [start, *kept]}.values())


def score(row: Row) -> float | None:
    """Return the mean LDS over query kinds, or None for a row without one."""
    means = [result.mean for result in row.metrics.lds.values()] if row.metrics else []
    return sum(mean for mean in means if mean is not None) / len(means) if means and None not in means else None


def _report(cells: list[PlannedCell], rows: list[Row], settings: list[Any]) -> None:
    base = asdict(settings[0])
    varied = [name for name in base if len({json.dumps(asdict(params)[name], default=str) for params in settings}) > 1]
    kinds = sorted({kind for row in rows if row.metrics for kind in row.metrics.lds})
    table = Table(
        *varied, *(f"{kind} LDS x100" for kind in kinds), "mean", "wall s", title="dev queries x open subsets"
    )
    scored = [
        (total if (total := score(row)) is not None else -9.0, row, params)
        for row, params in zip(rows, settings, strict=True)
    ]
    ranked = [pair for _, *pair in sorted(scored, key=lambda one: -one[0])]
    for row, params in ranked:
        table.add_row(*(str(getattr(params, name)) for name in varied), *_numbers(row, kinds))
    console.print(table)
    spent = sum(row.cost.wall_s for row in rows if row.cost)
    if score(ranked[0][0]) is None:
        raise UserError(f"no setting of {cells[0].key.method!r} was scored: {ranked[0][0].reason}")
    console.print(f"{len(rows)} settings, {duration(spent)} of computing; best on dev x open:")
    best = json.dumps(cells[0].key.params | json.loads(json.dumps(asdict(ranked[0][1]))))
    console.print(best, soft_wrap=True, markup=False)


def _numbers(row: Row, kinds: list[str]) -> list[str]:
    if row.metrics is None:
        return [*["-"] * len(kinds), row.status, "-"]
    means = [row.metrics.lds[kind].mean for kind in kinds]
    shown = ["-" if mean is None else f"{100 * mean:.1f}" for mean in means]
    total = score(row)
    return [*shown, "-" if total is None else f"{100 * total:.1f}", f"{row.cost.wall_s:.0f}" if row.cost else "-"]

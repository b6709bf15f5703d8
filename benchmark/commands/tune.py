"""Choosing parameters on dev queries and open subsets, with the choice's own cost on record."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from ...errors import UserError, unknown
from ...leaderboard.rows.row import Row
from ...methods.base import Method
from ...methods.registry import Entry, params_hash, preset_params
from ...seeds import numpy_generator
from .session import Session, check_items
from .terminal import console, duration


def tune(session: Session, name: str, preset: str, trials: int, only: list[str]) -> None:
    """Try settings of a method's search space and print the table and the parameters of the best."""
    if trials < 0:
        raise UserError("--trials must not be negative: 0 tries the whole grid")
    planner = session.planner
    cls = planner.method(name)
    check_items(cls, "tune")
    settings = grid(cls, preset_params(cls, preset), only, trials)
    if preset not in cls.presets:
        raise unknown(f"preset of {name!r}:", preset, cls.presets)
    cells = [cell for params in settings for cell in planner.cells([Entry(name, preset)], "dev", params={name: params})]
    _show([Trial(params, row) for params, row in zip(settings, session.run(cells), strict=True)])


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


@dataclass(frozen=True)
class Trial:
    """A setting that was tried, and the row it got."""

    params: Any
    row: Row

    @property
    def lds(self) -> dict[str, float | None]:
        """The mean LDS by query kind; empty for a row without metrics."""
        return {kind: result.mean for kind, result in self.row.metrics.lds.items()} if self.row.metrics else {}

    @property
    def score(self) -> float | None:
        """The mean LDS over query kinds, or None where one is missing."""
        means = [mean for mean in self.lds.values() if mean is not None]
        return sum(means) / len(means) if means and len(means) == len(self.lds) else None


def _show(trials: list[Trial]) -> None:
    """Print the trials, best first, and the best one's parameters; raises UserError where none was scored."""
    varied = [name for name in asdict(trials[0].params) if len({_text(trial, name) for trial in trials}) > 1]
    kinds = sorted({kind for trial in trials for kind in trial.lds})
    ranked = sorted(trials, key=lambda trial: -math.inf if trial.score is None else trial.score, reverse=True)
    table = Table(
        *varied, *(f"{kind} LDS x100" for kind in kinds), "mean", "wall s", title="dev queries x open subsets"
    )
    for trial in ranked:
        table.add_row(*(_text(trial, name) for name in varied), *_numbers(trial, kinds))
    console.print(table)
    best, spent = ranked[0], sum(trial.row.cost.wall_s for trial in trials if trial.row.cost)
    if best.score is None:
        raise UserError(f"no setting of {best.row.key.method!r} was scored: {best.row.reason}")
    console.print(f"{len(trials)} settings, {duration(spent)} of computing, each as if alone; best on dev x open:")
    console.print(json.dumps(best.row.key.params), soft_wrap=True, markup=False)


def _text(trial: Trial, name: str) -> str:
    return str(getattr(trial.params, name))


def _numbers(trial: Trial, kinds: list[str]) -> list[str]:
    if not trial.lds:
        return [*["-"] * len(kinds), trial.row.status, "-"]
    scores = [*(trial.lds[kind] for kind in kinds), trial.score]
    cost = trial.row.cost
    return [
        *("-" if score is None else f"{100 * score:.1f}" for score in scores),
        f"{cost.wall_s:.0f}" if cost else "-",
    ]

"""A picture of exemplar truth: exemplars beside samples of the models tuned on them, weakest tuning first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ....errors import UserError
from ....models.problem import read_problem
from ...sheets import labelled, sheet, write_png
from ...tasks.find import find_task
from ...truth.derived import Plugins
from ...truth.exemplars import Case, ExemplarTruth, exemplar_ids
from ..session import open_planner
from ..terminal import console
from .cases import truth_of


def samples(task: str, path: Path, plugins: Plugins = (), alone: bool = False) -> None:
    """Write a line for each tuning: its exemplars unless ``alone``, then samples before tuning and at each strength.

    Samples of a line are from the same noise. Raises UserError where cases are missing.
    """
    spec = find_task(task, plugins)
    truth = truth_of(spec, open_planner(task, plugins, problem_only=True).assets, plugins)
    if missing := len(truth.missing()):
        raise UserError(
            f"{missing} of {len(truth.runs)} models of {spec.label} are not tuned on exemplars yet: "
            f"run `tdabench truth build {spec.name} --kind exemplars`"
        )
    lines = [_line(truth, run, max(truth.plan.ks)) for run in truth.runs]
    steps = [f"{case.steps} updates" for case in truth.runs[0]]
    blocks = [
        labelled(sheet(torch.cat(images), len(images[0])), label)
        for images, label in zip(zip(*lines, strict=True), ("exemplars", "before", *steps), strict=True)
    ][int(alone) :]
    gap = torch.full((len(blocks[0]), 8, 3), 255, dtype=torch.uint8)
    write_png(path, torch.cat([part for block in blocks for part in (block, gap)][:-1], dim=1))
    shown = "" if alone else f"exemplars of {spec.label}, and "
    console.print(f"{path}: {shown}samples of the models tuned on exemplars", soft_wrap=True)


def _line(truth: ExemplarTruth, run: Sequence[Case], width: int) -> list[Tensor]:
    """Return the exemplars, white where fewer than ``width``, and the samples of the base model and of each case."""
    problems = [read_problem(truth.assets(case).folder, truth.source.plugins) for case in run]
    exemplars = problems[0].train.pixels(exemplar_ids(truth.assets(run[0])))
    blank = torch.ones(width - len(exemplars), *exemplars.shape[1:])
    count, shown = truth.plan.queries, [problem.queries.pixels for problem in problems]
    base = shown[0][count:]
    return [torch.cat([exemplars, blank]), base, *(made[:count] for made in shown)]

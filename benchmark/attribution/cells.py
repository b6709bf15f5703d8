"""The cells of a request: planned, looked at before anything runs, and what they left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...models.problem import Problem
from ...models.recipe import Recipe
from ...store import home
from ..processes import cores
from ..run.due import Inspector
from ..run.forecast import Forecast, Rates, calibrate, forecast
from ..run.plan import Options, PlannedCell, Planner, checked_options, parse_entries
from ..run.results import Results
from ..run.runner import Runner
from ..tasks.spec import QueryPlan, TaskSpec, TruthPlan
from .problem import ROLE, Made

NO_LIMIT = 30 * 86400.0  # seconds: what runs is somebody's own, who can stop it
ACTIVATIONS = 3  # times an image's layers' outputs: kept for the way back, and their gradients
TIMED = 32  # images that a pass is timed with
SHARE = 4  # of the memory goes to what a pass holds


def default_results() -> Path:
    """Return where scores and features of attributions lie unless a folder is named."""
    return home() / "attribution" / "results"


@dataclass(frozen=True)
class Cells:
    """The cells of a request, one for each entry and seed, in the order of the request.

    params: of methods, by name, instead of those of their presets; encoders: as of ``Planner``.
    """

    made: Made
    options: Options
    results: Results
    plugins: tuple[Path, ...] = ()
    encoders: Mapping[str, str | None] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def planner(self) -> Planner:
        """Plans cells of the problem."""
        manifest = self.made.assets.manifest
        recipe, nothing = Recipe.from_json(manifest["recipe"]), TruthPlan(0, 0, 0, 0, 0)
        spec = TaskSpec(
            manifest["task"],
            manifest["version"],
            f"attribution of {self.made.pipeline.folder}",
            manifest["dataset"]["name"],
            manifest["n_train"],
            recipe,
            QueryPlan(0, 0, 0),
            nothing,
        )
        return Planner(spec, self.made.assets, self.plugins, self.encoders, self.options.precision)

    @cached_property
    def asked(self) -> list[PlannedCell]:
        """All cells that were asked for; raises UserError for unknown methods, or those that score groups."""
        request = self.made.request
        entries = parse_entries(request.entries, [], "quick", self.planner.known)
        return self.planner.cells(entries, ROLE, request.seeds, self.params)

    @cached_property
    def runner(self) -> Runner:
        """What runs them."""
        return Runner(self.results, self.options)

    @cached_property
    def obstacles(self) -> dict[str, str]:
        """Why entries that were asked for cannot run, by entry."""
        inspector = Inspector(self.results, self.options)
        found = {str(cell.entry): _obstacle(inspector, cell) for cell in self.asked}
        return {entry: reason for entry, reason in found.items() if reason is not None}

    @property
    def possible(self) -> list[PlannedCell]:
        """The cells that can run."""
        return [cell for cell in self.asked if str(cell.entry) not in self.obstacles]

    def others(self) -> dict[str, str | None]:
        """Return the methods that were not asked for, and why each cannot run, or None where it can."""
        inspector, named = Inspector(self.results, self.options), {cell.key.method for cell in self.asked}
        names = sorted(set(self.planner.known) - named)
        entries = parse_entries(names, [], "quick", self.planner.known) if names else []
        return {
            cell.key.method: _obstacle(inspector, cell)
            for entry in entries
            for cell in self.planner.cells([entry], ROLE)
        }

    def rates(self) -> tuple[Problem, Rates]:
        """Return the problem, and how fast this machine is at it, measured."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.options.threads)
        try:
            return calibrate(self.made.assets.folder, self.options.device, images=min(TIMED, self.options.micro_batch))
        finally:
            torch.set_num_threads(before)

    def forecasts(self) -> list[Forecast]:
        """Return what the cells that can run will cost."""
        return forecast(self.possible, *self.rates())


def _obstacle(inspector: Inspector, cell: PlannedCell) -> str | None:
    missing = [name for name, member in cell.members.items() if inspector.results.row(member.key) is None]
    return None if missing else inspector.obstacle(cell)


def run_options(
    made: Made, device: str, memory: float, jobs: int, micro_batch: int, precision: str, cells: int
) -> Options:
    """Return options that suit a model of this size; memory: GiB in all, 0: what is free; micro_batch, jobs 0: chosen.

    Raises UserError for a device or precision that is not there.
    """
    jobs = jobs or (min(cores(), max(1, cells)) if device == "cpu" else 1)
    options = checked_options(device, jobs, NO_LIMIT, memory / jobs if memory else 0.0, 512, precision=precision)
    size = micro_batch or fitting_batch(made.problem(), device, options.memory_bytes or 2**33)
    return replace(options, micro_batch=size)


def fitting_batch(problem: Problem, device: str, memory: int) -> int:
    """Return how many images a pass may take, at most 512, a power of 2: their layers' outputs fill a quarter."""
    if device != "cpu":
        memory = torch.cuda.get_device_properties(device).total_memory
    fitting = memory // SHARE // (ACTIVATIONS * image_bytes(problem))
    return min(512, 1 << max(0, int(fitting).bit_length() - 1))


@torch.no_grad()
def image_bytes(problem: Problem) -> int:
    """Return the bytes of all layers' outputs for one image, measured on the CPU."""
    model, total = problem.model(problem.checkpoints[-1]), 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        total += 4 * output.numel() if isinstance(output, torch.Tensor) else 0

    leaves = [module for module in model.net.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    batch = problem.train.batch(torch.arange(1))
    model(batch.x, torch.ones(1), dict(batch.cond))
    for hook in hooks:
        hook.remove()
    return max(1, total)

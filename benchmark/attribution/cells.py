"""The cells of a request: planned, looked at before anything runs, and what they left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import psutil
import torch

from ...leaderboard.rows.row import Key
from ...methods.registry import Entry, listings
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
from .request import Request

JOBS = 2  # methods at a time on a CPU, whose cores they share
NO_LIMIT = 30 * 86400.0  # seconds: what runs is somebody's own, who can stop it
Plugins = tuple[Path, ...]
OWN = 0.75 * 2**30  # bytes of a process with its packages
ACTIVATIONS = 5  # times an image's layers' outputs: kept for the way back, and their gradients; measured: 3.8 to 4.4
TIMED = 32  # images that a pass is timed with
SHARE = 4  # of the memory goes to what a pass holds


def default_results() -> Path:
    """Return where scores and features of attributions lie unless a folder is named."""
    return home() / "attribution" / "results"


@dataclass(frozen=True)
class Cells:
    """The cells of a request, one for each entry and seed, in the order of the request.

    encoders: as of ``Planner``. Where a budget was fitted: params by entry instead of those of presets, why entries are
    too large for it, and notes of what was given up.
    """

    made: Made
    options: Options
    results: Results
    plugins: tuple[Path, ...] = ()
    encoders: Mapping[str, str | None] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    too_large: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
        """All cells that were asked for; raises UserError for unknown methods."""
        request = self.made.request
        entries = parse_entries(request.entries, [], "quick", self.planner.known)
        last = sorted(entries, key=lambda entry: bool(self.planner.known[entry.method].members))
        return [cell for entry in last for cell in self._of(entry, request.seeds)]

    def _of(self, entry: Entry, seeds: Sequence[int]) -> list[PlannedCell]:
        params = {entry.method: self.params[str(entry)]} if str(entry) in self.params else {}
        return self.planner.cells([entry], ROLE, seeds, params)

    @cached_property
    def runner(self) -> Runner:
        """What runs them."""
        return Runner(self.results, self.options)

    @cached_property
    def obstacles(self) -> dict[str, str]:
        """Why entries that were asked for cannot run, by entry."""
        inspector, keys = Inspector(self.results, self.options), [cell.key for cell in self.asked]
        found = {str(cell.entry): _obstacle(inspector, cell, keys) for cell in self.asked}
        return {entry: reason for entry, reason in found.items() if reason is not None} | dict(self.too_large)

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
            cell.key.method: _obstacle(inspector, cell, [])
            for entry in entries
            for cell in self.planner.cells([entry], ROLE)
        }

    @property
    def rates(self) -> tuple[Problem, Rates]:
        """The problem, and how fast this machine is at it, measured once."""
        images = min(TIMED, self.options.micro_batch)
        return _rates(self.made.assets.folder, self.options.device, self.options.threads, images)

    def forecasts(self) -> list[Forecast]:
        """Return what the cells that can run will cost."""
        return forecast(self.possible, *self.rates)


@cache
def _rates(folder: Path, device: str, threads: int, images: int) -> tuple[Problem, Rates]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return calibrate(folder, device, images=images)
    finally:
        torch.set_num_threads(before)


def _obstacle(inspector: Inspector, cell: PlannedCell, asked: Sequence[Key]) -> str | None:
    """Return why a cell cannot run, but for members that are asked for themselves, and so run before it."""
    waits = [member for member in cell.members.values() if inspector.results.row(member.key) is None]
    return None if waits and all(member.key in asked for member in waits) else inspector.obstacle(cell)


def check(request: Request, device: str, jobs: int, micro_batch: int, precision: str, plugins: Plugins = ()) -> Options:
    """Return the options of a request's cells, before anything is read; jobs 0: chosen, micro_batch 0: see ``sized``.

    What is chosen depends on the machine and neither on the methods nor on what is free, as features are kept for runs
    of the same options. Raises UserError for methods, a device or a precision that are not there.
    """
    request.check()
    parse_entries(request.entries, [], "quick", listings(plugins))
    jobs = jobs or (min(JOBS, cores()) if device == "cpu" else 1)
    memory = request.memory / max(1, jobs)
    options = checked_options(device, jobs, NO_LIMIT, memory, micro_batch or 1, precision=precision)
    return replace(options, micro_batch=micro_batch)


def sized(options: Options, made: Made) -> Options:
    """Return the options with a micro-batch that suits a model of this size, where none was asked for."""
    size = options.micro_batch or fitting_batch(made.problem(), options.device, room(made, options.jobs))
    return replace(options, micro_batch=size)


def room(made: Made, jobs: int) -> float:
    """Return the bytes that each of ``jobs`` cells may take beside packages and the model, twice: stored and in use."""
    most = made.request.memory * 2**30 or psutil.virtual_memory().total
    return most / jobs - OWN - 8 * sum(value.numel() for value in made.pipeline.weights.values())


def fitting_batch(problem: Problem, device: str, memory: float) -> int:
    """Return how many images a pass may take, at most 512, a power of 2: their layers' outputs fill a quarter."""
    if device != "cpu":
        memory = torch.cuda.get_device_properties(device).total_memory
    fitting = max(0.0, memory) / SHARE / (ACTIVATIONS * image_bytes(problem))
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

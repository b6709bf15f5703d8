"""The cells of a request: planned, looked at before anything runs, and what they left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import psutil
import torch

from ...errors import UserError
from ...leaderboard.rows.row import Key
from ...methods.base import Sizes
from ...methods.registry import Entry, listings
from ...models.problem import Problem
from ...models.recipe import Recipe
from ...store import home
from ..processes import cores
from ..run.due import Inspector
from ..run.forecast import Forecast, Rates, calibrate, estimated, forecast, sizes_of
from ..run.plan import Options, PlannedCell, Planner, check_device, checked_options, parse_entries
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
CHANCE = "random"  # the method whose order says nothing
TIMED = 32  # images that a pass is timed with
SHARE = 4  # of the memory goes to what a pass holds


def default_results() -> Path:
    """Return where scores and features of attributions lie unless a folder is named."""
    return home() / "attribution" / "results"


@dataclass(frozen=True)
class Cells:
    """The cells of a request, one for each entry and seed, in the order of the request.

    encoders: as of ``Planner``. Where a budget was fitted: params by entry instead of those of presets, why entries are
    too large for it, notes of what was given up, and how long the shortlist is, 0 for what the request says.
    """

    made: Made
    options: Options
    results: Results
    plugins: tuple[Path, ...] = ()
    encoders: Mapping[str, str | None] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    too_large: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    shortlist: int = 0

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

    @property
    def listed(self) -> int:
        """How many images each picture's shortlist has; 0 for none."""
        return self.shortlist or self.made.request.shortlist or 0

    @cached_property
    def narrowed(self) -> list[PlannedCell]:
        """The cells that score a shortlist alone."""
        return self.scanning if self.listed and self.rankers else []

    @cached_property
    def scanning(self) -> list[PlannedCell]:
        """The cells that score all images at the cost of passes over them for each picture."""
        return [cell for cell in self.possible if not cell.members and scans(cell, self.sizes)]

    @cached_property
    def rankers(self) -> list[PlannedCell]:
        """The cells by whose scores of all images shortlists are made."""
        alike = [cell for cell in self.possible if not cell.members and cell.key.method != CHANCE]
        return [cell for cell in alike if cell not in self.scanning]

    @cached_property
    def sizes(self) -> Sizes:
        """What costs depend on, but for the queries."""
        return sizes_of(self.made.problem())

    @property
    def remarks(self) -> list[str]:
        """What was given up, and what a shortlist leaves out."""
        narrowed, rankers = ({str(cell.entry): None for cell in cells} for cells in (self.narrowed, self.rankers))
        if narrowed:
            first = f"{self.listed} images for each picture, those that {', '.join(rankers)} rank highest in turn"
            line = f"{', '.join(narrowed)}: a shortlist is scored, of {first}; other images have no score by it"
            return [*self.notes, line]
        if not self.listed:
            return list(self.notes)
        if self.scanning:
            return [*self.notes, "--shortlist needs a method that ranks all images at once: add pixel or d-trak"]
        return [
            *self.notes,
            "no method here passes over all images for each picture: --shortlist changes nothing",
        ]

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
        """The problem, and how fast this machine is at it, measured once; devices share gradients of single images."""
        images = min(TIMED, self.options.micro_batch)
        problem, rates = _rates(self.made.assets.folder, self.options.device, self.options.threads, images)
        return problem, replace(rates, per_sample=rates.per_sample / max(1, len(self.options.devices)))

    def forecasts(self) -> list[Forecast]:
        """Return what the cells that can run will cost."""
        return self.forecasts_of(self.possible)

    def forecasts_of(self, cells: Sequence[PlannedCell]) -> list[Forecast]:
        """Return what cells would cost, whatever their parameters; those with a shortlist score no other images."""
        (_, rates), narrowed = self.rates, {str(cell.entry) for cell in self.narrowed}
        few = min(self.sizes.n_items, self.listed * len(self.made.assets.manifest["queries"]))
        sizes = {True: replace(self.sizes, n_items=few), False: self.sizes}
        return [forecast([cell], sizes[str(cell.entry) in narrowed], rates)[0] for cell in cells]


def scans(cell: PlannedCell, sizes: Sizes) -> bool:
    """Say whether, by a method's own estimate, each picture costs more passes the more training images there are."""

    def passes(items: int, pictures: int) -> int:
        found = estimated(cell.cls, cell.params, replace(sizes, n_items=items), pictures)
        return 0 if found is None else found.forward + found.trained + found.per_sample

    one, two = (passes(n, 2) - passes(n, 1) for n in (sizes.n_items, 2 * sizes.n_items))
    return two > one


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
    waits = [member for member in cell.members.values() if inspector.due(member) != "nothing"]
    return None if waits and all(member.key in asked for member in waits) else inspector.obstacle(cell)


def check(request: Request, device: str, jobs: int, micro_batch: int, precision: str, plugins: Plugins = ()) -> Options:
    """Return the options of a request's cells, before anything is read; jobs 0: chosen, micro_batch 0: see ``sized``.

    device: one, or several of a kind with commas between them, which share the features of training images. What is
    chosen depends on the machine and neither on the methods nor on what is free, as features are kept for runs of the
    same options. Raises UserError for methods, devices or a precision that are not there.
    """
    request.check()
    parse_entries(request.entries, [], "quick", listings(plugins))
    first, *others = devices = [name.strip() for name in device.split(",")]
    for name in others:
        check_device(name)
    jobs = jobs or (min(JOBS, cores()) if first == "cpu" else 1)
    options = checked_options(first, jobs, NO_LIMIT, 0.0, micro_batch or 1, retry=True, precision=precision)
    if len({kind_of(name) for name in devices}) > 1:
        raise UserError(
            f"--device {device}: features of different devices differ in rounding: name devices of one kind"
        )
    options = replace(options, micro_batch=micro_batch, devices=tuple(devices) if others else ())
    if not request.memory:
        return options
    return replace(options, memory_bytes=int(request.memory * 2**30 / at_once(options)), memory_asked=True)


def kind_of(device: str) -> str:
    """Return what a device is: a CPU, or the name of the GPU."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def at_once(options: Options) -> int:
    """Return how many processes compute on the host at once: of each cell, one on every CPU that is named."""
    return options.jobs * max(1, options.devices.count("cpu"))


def sized(options: Options, made: Made) -> Options:
    """Return the options with a micro-batch that suits a model of this size, where none was asked for."""
    size = options.micro_batch or fitting_batch(made.problem(), options.device, room(made, at_once(options)))
    return replace(options, micro_batch=size)


def room(made: Made, processes: int) -> float:
    """Return the bytes that each of ``processes`` may take beside packages and the model, twice: stored and in use."""
    most = made.request.memory * 2**30 or psutil.virtual_memory().total
    return most / processes - OWN - 8 * sum(value.numel() for value in made.pipeline.weights.values())


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

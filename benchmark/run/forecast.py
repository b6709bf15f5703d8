"""Forecasting a cell's time and memory from its pass counts and a short calibration of the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...datasets.base import Batch
from ...errors import UserError
from ...methods.base import Estimate, Method, Sizes
from ...methods.engines.features import per_sample_gradients
from ...models.denoiser import Denoiser
from ...models.draws import Draws, Law
from ...models.problem import Problem, read_problem
from ..sandbox.fork_server import forkserver
from .plan import PlannedCell


@dataclass(frozen=True)
class Rates:
    """Seconds per sample pass of each kind on this machine, and per cell before its first pass."""

    forward: float
    trained: float
    per_sample: float
    setup: float

    def seconds(self, estimate: Estimate) -> float:
        """Return the seconds that a cell of this estimate takes, its set-up included."""
        counts = (
            (estimate.forward, self.forward),
            (estimate.trained, self.trained),
            (estimate.per_sample, self.per_sample),
        )
        return self.setup + sum(count * rate for count, rate in counts)


@dataclass(frozen=True)
class Forecast:
    """A cell's estimate with seconds on this machine; None for a method that gives no estimate."""

    planned: PlannedCell
    estimate: Estimate | None
    seconds: float | None


def calibrate(folder: Path, device: str, plugins: tuple[Path, ...] = (), images: int = 128) -> tuple[Problem, Rates]:
    """Read the problem of an assets folder, and measure the rates on its final model in a second or two.

    plugins: files that may hold its dataset.
    """
    start = time.perf_counter()
    problem = read_problem(folder, plugins)
    setup = time.perf_counter() - start
    model = problem.model(problem.checkpoints[-1], device)
    batch = problem.train.batch(torch.arange(images) % len(problem.train))
    return problem, measured(model, batch, device, setup)


def measured(model: Denoiser, batch: Batch, device: str, setup: float = 0.0, repeats: int = 4) -> Rates:
    """Measure the rates of a model on a batch, each as the fastest of ``repeats`` but the first."""
    draws = Draws("calibrate", 1, Law("even"), "shared", 0, tuple(batch.x.shape[1:]), model.process)
    return Rates(
        forward=_time(lambda: _forward(model, batch, draws), device, repeats) / len(batch),
        trained=_time(lambda: model.losses(batch, draws).mean().backward(), device, repeats) / len(batch),
        per_sample=_time(lambda: per_sample_gradients(model, batch, draws, "loss"), device, repeats) / len(batch),
        setup=setup,
    )


def forecast(cells: list[PlannedCell], problem: Problem | Sizes, rates: Rates) -> list[Forecast]:
    """Return what each cell will cost on a problem, or on one of these sizes."""
    sizes = problem if isinstance(problem, Sizes) else sizes_of(problem)
    found = [(one, estimated(one.cls, one.params, sizes, len(one.attributed_ids))) for one in cells]
    return [Forecast(one, estimate, None if estimate is None else rates.seconds(estimate)) for one, estimate in found]


def estimated(cls: type[Method], params: Any, sizes: Sizes, n_queries: int) -> Estimate | None:
    """Return what a method would cost on this many queries, or None where it does not say."""
    with suppress(UserError):  # from a plugin's process: a forecast is no reason to run nothing
        return cls(params).estimate(replace(sizes, n_queries=n_queries, slices=-(-n_queries // cls.slice_size)))
    return None


def sizes_of(problem: Problem, n_queries: int = 0, slices: int = 1) -> Sizes:
    """Return what costs depend on, of a problem with this many queries in this many slices."""
    model = problem.model(problem.checkpoints[-1])
    return Sizes(
        n_items=len(problem.train),
        n_queries=n_queries,
        n_parameters=sum(value.numel() for value in model.parameters()),
        parameters={name: value.numel() for name, value in model.trainable_parameters().items()},
        checkpoints=sum(step > 0 for step in problem.checkpoints),
        slices=slices,
        shape=problem.train.shape,
    )


@torch.no_grad()
def _forward(model: Denoiser, batch: Batch, draws: Draws) -> None:
    model.losses(batch, draws)


def _time(work: Callable[[], object], device: str, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def start_up() -> float:
    """Return how long the process that cells are forked from takes to start, with its imports; little once it is up.

    It is left running, so that the time is measured and not spent twice.
    """
    start = time.perf_counter()
    process = forkserver().Process(target=os.getpid)
    process.start()
    process.join()
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)

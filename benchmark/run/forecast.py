"""Forecasting a cell's time and memory from its pass counts and a short calibration of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...datasets.base import Batch
from ...methods.base import Estimate
from ...methods.engines.gradients import per_sample_gradients
from ...models.denoiser import Denoiser
from ...models.draws import Draws, Law
from ...models.problem import Problem
from .plan import PlannedCell


@dataclass(frozen=True)
class Rates:
    """Seconds per sample pass of each kind on this machine."""

    forward: float
    trained: float
    per_sample: float

    def seconds(self, estimate: Estimate) -> float:
        """Return the seconds that the passes of an estimate take."""
        counts = (
            (estimate.forward, self.forward),
            (estimate.trained, self.trained),
            (estimate.per_sample, self.per_sample),
        )
        return sum(count * rate for count, rate in counts)


@dataclass(frozen=True)
class Forecast:
    """A cell's estimate with seconds on this machine; None for a method that gives no estimate."""

    planned: PlannedCell
    estimate: Estimate | None
    seconds: float | None


def calibrate(problem: Problem, device: str, images: int = 128) -> Rates:
    """Measure the three rates on the problem's final model in a second or two."""
    model = problem.model(problem.checkpoints[-1], device)
    batch = problem.train.batch(torch.arange(images) % len(problem.train))
    shape = tuple(batch.x.shape[1:])
    draws = Draws("calibrate", 1, Law("even"), "shared", 0, shape, model.process)
    return Rates(
        forward=_time(lambda: _forward(model, batch, draws), device) / images,
        trained=_time(lambda: model.losses(batch, draws).mean().backward(), device) / images,
        per_sample=_time(lambda: per_sample_gradients(model, batch, draws, "loss"), device) / images,
    )


def forecast(cells: list[PlannedCell], problem: Problem, rates: Rates) -> list[Forecast]:
    """Return what each cell will cost."""
    parameters = sum(value.numel() for value in problem.weights[problem.checkpoints[-1]].values())
    found = []
    for planned in cells:
        estimate = planned.cls(planned.params).estimate(len(problem.train), len(planned.attributed_ids), parameters)
        found.append(Forecast(planned, estimate, None if estimate is None else rates.seconds(estimate)))
    return found


@torch.no_grad()
def _forward(model: Denoiser, batch: Batch, draws: Draws) -> None:
    model.losses(batch, draws)


def _time(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(4):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)

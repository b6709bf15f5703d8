"""The view: a method's only door to a problem; it leads to no truth but the open one, where a method declares it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..datasets.base import Batch, Conditions, ImageDataset
from ..datasets.groups import Groups
from ..datasets.queries import Queries
from ..errors import UserError
from ..models.counting import Passes
from ..models.denoiser import Denoiser
from ..models.draws import Draws, Law, Scope
from ..models.precision import Precision
from ..models.problem import Problem
from ..models.processes import open_process
from ..models.processes.base import Process, Unit
from ..models.recipe import Recipe
from ..models.sampling import Trajectory, sample, trajectory
from ..models.training import TrainingStep, optimizer, training_loss, training_step
from ..seeds import torch_generator
from .kept import Keeper
from .rows import BATCH, MEMORY, Making, Rows, parts_of

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
Encode = Callable[[Tensor], Tensor]


class OpenTruth(NamedTuple):
    """What a method may learn from: losses of dev queries under models retrained on open subsets.

    masks [M, N] bool (True = in the training set); losses [M, Q] float32, averaged over replicates and noise levels;
    queries: the Q dev queries, of all kinds.
    """

    masks: Tensor
    losses: Tensor
    queries: Queries


def silent(label: str, done: int, total: int) -> None:
    """Report progress to nobody."""


class OutOfReach:
    """Stands for the queries of a problem that a method sees: they come as the argument of ``attribute`` alone."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying and comparing look for
            raise AttributeError(name)
        raise UserError("view.problem.queries is out of reach: only attribute gets queries, as its argument")

    def __len__(self) -> int:
        return len(self.ids)


def without_queries(problem: Problem) -> Problem:
    """Return the problem as a method sees it: to read its queries is a UserError."""
    nothing: Any = OutOfReach()
    return replace(problem, queries=nothing)


@dataclass
class View:
    """What a method may use of a problem, on a device, with a seed.

    micro_batch: images per forward pass; it changes speed and memory, never scores beyond rounding.
    scratch: the only folder that a method may write to. stored_scores: for ensembles, [Q, N] by member entry.
    open_truth: for methods that declare ``open-truth``, else None. memory: bytes that rows and kernels may take beside
    the model. keeper: keeps rows for later cells; None where every cell computes its own. encoders: those that the
    method declares, by name. precision: in which networks compute; all else is float32 or float64.
    """

    problem: Problem
    scratch: Path
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    micro_batch: int = 512
    report: Progress = silent
    stored_scores: Mapping[str, Callable[[tuple[str, ...]], Tensor]] = field(default_factory=dict)
    open_truth: OpenTruth | None = None
    passes: Passes = field(default_factory=Passes)
    memory: int = MEMORY
    keeper: Keeper | None = None
    encoders: Mapping[str, Encode] = field(default_factory=dict)
    precision: Precision = "float32"

    @property
    def train(self) -> ImageDataset:
        """The training set; its ids are 0..N-1."""
        return self.problem.train

    @property
    def groups(self) -> Groups:
        """The groups of items that the task leaves out one by one; every problem of a ``unit = "group"`` has them."""
        if self.problem.groups is None:
            raise ValueError("this problem has no groups: declare unit = 'group'")
        return self.problem.groups

    @property
    def checkpoints(self) -> tuple[tuple[int, float], ...]:
        """(updates, learning rate in force there) of the stored checkpoints, without the untrained one."""
        recipe = self.problem.recipe
        rate = (lambda step: recipe.learning_rate_at(step - 1)) if recipe else (lambda step: 1.0)
        return tuple((step, rate(step)) for step in self.problem.checkpoints if step > 0)

    def model(self, at: Literal["final", "untrained"] | int = "final") -> Denoiser:
        """Return a private copy of the model: final, untrained, or after a checkpoint's number of updates."""
        steps = {"final": self.problem.checkpoints[-1], "untrained": 0}
        model = self.problem.model(steps[at] if isinstance(at, str) else at, self.device)
        model.passes, model.micro_batch, model.precision = self.passes, self.micro_batch, self.precision
        return model

    def draws(self, n: int, law: Law, scope: Scope = "shared", name: str = "loss") -> Draws:
        """Return n draws of (log-SNR, noise), keyed by (seed, name) and, with scope ``item``, by item id."""
        return Draws(name, n, law, scope, self.seed, self.train.shape, self.process)

    @property
    def _recipe(self) -> Recipe:
        if self.problem.recipe is None:
            raise ValueError("this problem has no recipe: declare needs = ('recipe',)")
        return self.problem.recipe

    @cached_property
    def process(self) -> Process:
        """The model's noise process."""
        return open_process(self.problem.spec.process)

    def losses(self, model: Denoiser, batch: Batch, draws: Draws, unit: Unit | None = None) -> Tensor:
        """Return losses [B, S] of a batch at each draw, in the unit of training or another; differentiable."""
        return model.losses(batch, draws, unit)

    def outputs(self, model: Denoiser, batch: Batch, draws: Draws) -> Tensor:
        """Return predicted noise [B, S, C, H, W]."""
        return model.outputs(batch, draws)

    def training_loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the scalar loss the model was trained with, levels, noise and dropping from ``generator``."""
        return training_loss(model, batch, generator, self.problem.recipe)

    def training_step(self, step: int) -> TrainingStep:
        """Return what an update (0-based) of the model's training saw: ids, levels, noise; needs ``recipe``.

        Raises UserError where the recipe is assumed, since nobody knows what that training saw.
        """
        if self._recipe.assumed:
            raise UserError("how this model was trained is not known: its updates cannot be replayed")
        return training_step(self._recipe, len(self.train), self.train.shape, self.problem.seed, step)

    def optimizer(self, parameters: Iterable[nn.Parameter], scale: float = 1.0) -> torch.optim.Optimizer:
        """Return a fresh optimiser as the recipe has it, learning rate times ``scale``; needs ``recipe``."""
        return optimizer(self._recipe, list(parameters), scale)

    def sample(
        self,
        model: Denoiser,
        noise: Tensor,
        cond: Conditions | None = None,
        guidance: Tensor | None = None,
        **hooks: Any,
    ) -> Tensor:
        """Return images from initial noise by the model's own sampler, given conditions and guidance scales [B]."""
        return sample(model, noise, self.problem.spec, cond, guidance, **hooks)

    def trajectory(self, model: Denoiser, queries: Queries) -> Trajectory:
        """Return generated queries' way from their noise to themselves, as the task's sampler makes them.

        Under their own conditions and guidance; raises ValueError for a query that has no initial noise.
        """
        strangers = [name for name, kind in zip(queries.ids, queries.kinds, strict=True) if kind != "generated"]
        if strangers:
            raise ValueError(f"{strangers[0]} was not generated: pick queries.where(kind='generated')")
        return trajectory(model, queries.noise, self.problem.spec, queries.cond, queries.guidance)

    def encoder(self, name: str) -> Encode:
        """Return what embeds images [B, C, H, W] in [-1, 1], as people see them, as [B, D]; needs ``encoder``."""
        if name not in self.encoders:
            raise ValueError(f"no encoder {name!r} here: declare needs = ('encoder',) and encoders = ({name!r},)")
        return self.encoders[name]

    def batches(self, size: int, within: slice | None = None) -> Iterator[tuple[slice, Batch]]:
        """Yield the training set as (slice of ids, batch) of at most ``size`` items, each item once, in any order.

        within: a slice of ids, where not all are asked for.
        """
        asked = within or slice(0, len(self.train))
        for part in parts_of(asked.stop, size, asked.start):
            yield part, self.train.batch(torch.arange(part.start, part.stop))

    def kept(
        self,
        name: str,
        compute: Callable[[Batch], Tensor],
        shape: tuple[int, ...],
        inputs: Mapping[str, Any] | None = None,
        size: int = BATCH,
    ) -> Rows:
        """Return float32 rows [N, *shape] of the training set, ``compute`` [n, *shape] of batches of ``size`` items.

        They are in memory where they take a quarter of ``memory``, and in files otherwise. inputs: JSON values of all
        that they depend on besides the code, problem, seed, micro-batch and machine; with these, blocks are kept for
        later cells and for this one's next start, and what they cost is added to what is measured. None: never kept.
        """
        rows, done = (len(self.train), *shape), self._counted(name)
        making = Making(name, rows, compute, self.batches, size, self.memory, done)
        if self.keeper is None or inputs is None:
            return making.made(self.scratch / name)
        return self.keeper.rows(making, {**inputs, "seed": self.seed, "batch": self.micro_batch}, self.scratch / name)

    def _counted(self, name: str) -> Callable[[int], None]:
        """Return what reports items as they are done, called with their number."""
        total, so_far = len(self.train), 0
        self.report(name, 0, total)

        def done(items: int) -> None:
            nonlocal so_far
            so_far += items
            self.report(name, so_far, total)

        return done

    def by_id(self, parts: Iterable[tuple[slice, Tensor]]) -> Tensor:
        """Return one tensor [N, ...] on the CPU from pairs (slice of ids, values [n, ...]) in any order."""
        out = torch.empty(0)
        for part, values in parts:
            if not len(out):
                out = torch.empty(len(self.train), *values.shape[1:], dtype=values.dtype)
            out[part] = values.detach().cpu()
        return out

    def rng(self, *axes: str | int) -> torch.Generator:
        """Return a generator keyed by the seed and names, never by call order."""
        return torch_generator("method", self.seed, *axes)

    def progress(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items, reporting how many are done."""
        self.report(label, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            self.report(label, done, total)

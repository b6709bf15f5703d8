"""Trial runs of a method on the tiny twin of `digits`: plain ones, and unusual ones that should change nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Batch
from ...datasets.groups import group_items
from ...datasets.queries import Queries
from ...methods import registry
from ...methods.base import Method
from ...methods.registry import Listing
from ...methods.view import OpenTruth, View
from ...models.problem import Problem
from ...seeds import torch_generator
from ..run.worker import assemble, width
from .effects import Effects, watched
from .tiny import conditional_problem, offering, tiny_problem


@dataclass(frozen=True)
class Outcome:
    """One run: scores [Q, N] or what went wrong, what it did to the process, which parts of the problem it changed.

    Scores of a method of groups are [Q, G].
    """

    scores: np.ndarray | None
    error: Exception | None
    effects: Effects
    changed: list[str]


class BackwardsView(View):
    """A view that visits the training set from its end, in batches smaller than asked for and of unequal size."""

    def batches(self, size: int) -> Iterator[tuple[slice, Batch]]:
        """Yield (slice of ids, batch) in descending order; ids stay with their items."""
        stop, count = len(self.train), 0
        while stop > 0:
            start = max(0, stop - min(size, 3 + 4 * (count % 3)))
            yield slice(start, stop), self.train.batch(torch.arange(start, stop))
            stop, count = start, count + 1


class Subject:
    """A method with the parameters of one preset, run on the twin; the plain run is made once.

    A method sees only those optional parts of the twin that it declares to need.
    """

    def __init__(self, cls: type[Method], listing: Listing, preset: str) -> None:
        self.cls, self.listing, self.preset = cls, listing, preset
        self.source = conditional_problem if "cond" in cls.needs else tiny_problem
        self.twin = self._grouped(self.source())
        self.problem = offering(self.twin, cls.needs)
        self.queries = self._asked(self.twin)

    @cached_property
    def plain(self) -> Outcome:
        """The run that most rules look at: the last query, then all others at once, nothing unusual."""
        found = self.run([self.last, self.others])
        order = np.argsort(self.last + self.others)
        return found if found.scores is None else replace(found, scores=found.scores[order])

    @property
    def scores(self) -> np.ndarray:
        """The plain run's scores [Q, N]."""
        assert self.plain.scores is not None
        return self.plain.scores

    @property
    def last(self) -> list[int]:
        """The last query, which was generated: enough for rules on how scores are computed."""
        return [len(self.queries) - 1]

    @property
    def others(self) -> list[int]:
        """All queries but the last."""
        return list(range(len(self.queries) - 1))

    @property
    def few(self) -> list[int]:
        """The second query, which is planted and not the first of its slice in the plain run, and the last one."""
        return sorted({min(1, *self.last), *self.last})

    @cached_property
    def elsewhere(self) -> Outcome:
        """A run of one query on another kind of model: a transformer by class under EDM."""
        return self.run([self.last], source=conditional_problem)

    def _grouped(self, problem: Problem) -> Problem:
        """Return the problem with its classes as groups, for a method that scores these."""
        grouped = self.cls.unit == "group"
        return replace(problem, groups=group_items(problem.train, "classes")) if grouped else problem

    def _asked(self, problem: Problem) -> Queries:
        kinds = problem.queries.kinds
        return problem.queries.pick([i for i, kind in enumerate(kinds) if kind in self.cls.query_kinds])

    def run(
        self,
        slices: list[list[int]],
        view: type[View] = View,
        micro_batch: int = 512,
        chance: int = 0,
        source: Callable[[], Problem] | None = None,
    ) -> Outcome:
        """Fit and attribute the queries slice by slice, on a private copy of the problem (or of another ``source``).

        chance: what the global random generators are seeded with, which must not matter.
        """
        source = source or self.source
        problem, untouched = (offering(self._grouped(source()), self.cls.needs) for _ in range(2))
        queries = self._asked(untouched)
        scores, error = None, None
        with tempfile.TemporaryDirectory(prefix="tdabench-check-") as folder, watched(Path(folder), chance) as effects:
            door = view(problem, Path(folder) / "scratch", micro_batch=micro_batch, **_synthetic(problem, self.cls))
            try:
                scores = self._attribute(door, [queries.pick(index) for index in slices if index])
            except Exception as caught:
                error = caught
        return Outcome(scores, error, effects, _differences(untouched, problem))

    def _attribute(self, view: View, slices: list[Queries]) -> np.ndarray:
        method = self.cls(registry.preset_params(self.cls, self.preset))
        state = method.fit(view)
        n, unit = width(method, view), method.unit
        return np.concatenate([assemble(method.attribute(view, state, part), len(part), n, unit) for part in slices])


def _synthetic(problem: Problem, cls: type[Method]) -> dict[str, Any]:
    """Return what the runner would have to compute first: members' scores and open truth, here from pixel distances."""
    images = problem.train.pixels(torch.arange(len(problem.train)))
    closeness = -torch.cdist(problem.queries.pixels.flatten(1), images.flatten(1))
    given: dict[str, Any] = {"stored_scores": {name: _stored(problem, closeness, name) for name in cls.members}}
    if "open-truth" in cls.needs:
        masks = torch.rand(64, len(problem.train), generator=torch_generator("contract", "masks")) < 0.5
        given["open_truth"] = OpenTruth(masks, -masks.float() @ closeness.exp().T, problem.queries)
    return given


def _stored(problem: Problem, closeness: Tensor, member: str) -> Callable[[tuple[str, ...]], Tensor]:
    noise = torch.randn(closeness.shape, generator=torch_generator("contract", member))
    scores = closeness + 0.1 * noise
    return lambda query_ids: scores[[problem.queries.ids.index(query) for query in query_ids]]


def _differences(expected: Problem, found: Problem) -> list[str]:
    pairs = {
        "the training images": (expected.train.images, found.train.images),
        "the queries": (expected.queries.x, found.queries.x),
        "the queries' noise": (expected.queries.noise, found.queries.noise),
        "the queries' guidance": (expected.queries.guidance, found.queries.guidance),
    }
    if expected.groups is not None and found.groups is not None:
        pairs["the groups"] = (expected.groups.assignment, found.groups.assignment)
    for name, value in expected.train.cond.items():
        pairs[f"the training images' {name}"] = (value, found.train.cond.get(name, torch.empty(0)))
    for name, value in expected.queries.cond.items():
        pairs[f"the queries' {name}"] = (value, found.queries.cond.get(name, torch.empty(0)))
    for step, state in expected.weights.items():
        for name, value in state.items():
            pairs[f"{name} after {step} updates"] = (value, found.weights.get(step, {}).get(name, torch.empty(0)))
    return [name for name, (a, b) in pairs.items() if not torch.equal(a, b)]

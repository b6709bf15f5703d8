"""Trial runs of a method on the tiny twin of `digits`: plain ones, and unusual ones that should change nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Batch
from ...datasets.groups import group_items
from ...datasets.queries import Queries
from ...errors import UserError
from ...methods import registry
from ...methods.base import Method
from ...methods.registry import Listing
from ...methods.view import OpenTruth, View, without_queries
from ...models.counting import Passes
from ...models.encoders.weights import random_convolution
from ...models.problem import Problem
from ...seeds import torch_generator
from ..run.worker import assemble, width
from ..tasks.spec import TaskSpec
from .effects import Effects, watched
from .tiny import BY_LABEL, BY_TEXT, LATENT, TWIN, offering, shuffled, tiny_problem


@dataclass(frozen=True)
class Outcome:
    """One run: scores [Q, N] or what went wrong, what it did to the process, which parts of the problem it changed.

    Scores of a method of groups are [Q, G]. passes: through the network, of fit and attribute.
    """

    scores: np.ndarray | None
    error: Exception | None
    effects: Effects
    changed: list[str]
    passes: Passes


class BackwardsView(View):
    """A view that visits the training set from its end, in batches smaller than asked for and of unequal size."""

    def batches(self, size: int, within: slice | None = None) -> Iterator[tuple[slice, Batch]]:
        """Yield (slice of ids, batch) in descending order; ids stay with their items."""
        first, stop, count = within.start if within else 0, within.stop if within else len(self.train), 0
        while stop > first:
            start = max(first, stop - min(size, 3 + 4 * (count % 3)))
            yield slice(start, stop), self.train.batch(torch.arange(start, stop))
            stop, count = start, count + 1


class Subject:
    """A method with the parameters of one preset, run on the twin; the plain run is made once.

    A method sees only those optional parts of the twin that it declares to need.
    """

    def __init__(self, cls: type[Method], listing: Listing, preset: str) -> None:
        self.cls, self.listing, self.preset = cls, listing, preset
        self.spec = BY_LABEL if "cond" in cls.needs else TWIN
        self.twin = self.source()
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

    def source(self, spec: TaskSpec | None = None) -> Problem:
        """Return a private copy of the twin that the method runs on, or of another one, with its kinds of queries."""
        return self._grouped(tiny_problem(0, spec or self.spec, self.cls.query_kinds))

    @cached_property
    def elsewhere(self) -> dict[str, Outcome | str]:
        """Runs of one query on other kinds of models, by what they are; a reason where one cannot be had here."""
        found: dict[str, Outcome | str] = {}
        for what, spec in (("embeddings of text under EDM", BY_TEXT), ("adapters of a transformer on latents", LATENT)):
            try:
                self.source(spec)
            except UserError as error:
                found[what] = str(error)
            else:
                found[what] = self.run([self.last], source=partial(self.source, spec))
        return found

    @cached_property
    def confused(self) -> Outcome:
        """A run of one query where the training images have each other's conditions."""
        return self.run([self.last], source=lambda: shuffled(self.source()))

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
        problem, untouched = (offering(source(), self.cls.needs) for _ in range(2))
        queries = self._asked(untouched)
        scores, error = None, None
        with tempfile.TemporaryDirectory(prefix="tdabench-check-") as folder, watched(Path(folder), chance) as effects:
            given, seen = _synthetic(problem, self.cls), without_queries(problem)
            door = view(seen, Path(folder) / "scratch", micro_batch=micro_batch, **given)
            try:
                scores = self._attribute(door, [queries.pick(index) for index in slices if index])
            except Exception as caught:
                error = caught
        return Outcome(scores, error, effects, _differences(untouched, problem), door.passes)

    def _attribute(self, view: View, slices: list[Queries]) -> np.ndarray:
        method = self.cls(registry.preset_params(self.cls, self.preset))
        state = method.fit(view)
        n, unit = width(method, view), method.unit
        return np.concatenate([assemble(method.attribute(view, state, part), len(part), n, unit) for part in slices])


def _synthetic(problem: Problem, cls: type[Method]) -> dict[str, Any]:
    """Return what the runner would have to compute first: members' scores and open truth, here from pixel distances."""
    items = problem.train.batch(torch.arange(len(problem.train))).x
    closeness = -torch.cdist(problem.queries.x.flatten(1), items.flatten(1))
    given: dict[str, Any] = {"stored_scores": {name: _stored(problem, closeness, name) for name in cls.members}}
    if "encoder" in cls.needs:
        given["encoders"] = {name: random_convolution(name) for name in cls.encoders}
    if "open-truth" in cls.needs:
        masks = torch.rand(64, len(problem.train), generator=torch_generator("contract", "masks")) < 0.5
        given["open_truth"] = OpenTruth(masks, -masks.float() @ closeness.exp().T, problem.queries)
    return given


def _stored(problem: Problem, closeness: Tensor, member: str) -> Callable[[tuple[str, ...]], Tensor]:
    noise = torch.randn(closeness.shape, generator=torch_generator("contract", member))
    scores = closeness + 0.1 * noise
    return lambda query_ids: scores[[problem.queries.ids.index(query) for query in query_ids]]


def _differences(expected: Problem, found: Problem) -> list[str]:
    everything = torch.arange(len(expected.train))
    pairs = {
        "the training images": (expected.train.pixels(everything), found.train.pixels(everything)),
    }
    named = {
        "the training images' {}": (expected.train.batch(everything).cond, found.train.batch(everything).cond),
        "what stands for no {}": (expected.train.null, found.train.null),
        "the queries' {}": (expected.queries.cond, found.queries.cond),
        "{} of the base weights": (expected.base or {}, found.base or {}),
        "{} of the autoencoder": (expected.autoencoder or {}, found.autoencoder or {}),
        "the {} of the training images": (
            _extra(expected.train.latents, "latents"),
            _extra(found.train.latents, "latents"),
        ),
        "the queries' {}, decoded": (_extra(expected.queries.images, "images"), _extra(found.queries.images, "images")),
    }
    if expected.groups is not None and found.groups is not None:
        pairs["the groups"] = (expected.groups.assignment, found.groups.assignment)
    for step, state in expected.weights.items():
        named[f"{{}} after {step} updates"] = (state, found.weights.get(step, {}))
    for label, (before, after) in named.items():
        pairs |= {label.format(name): (value, after.get(name, torch.empty(0))) for name, value in before.items()}
    return [name for name, (a, b) in pairs.items() if not torch.equal(a, b)]


def _extra(value: Tensor | None, name: str) -> dict[str, Tensor]:
    return {} if value is None else {name: value}

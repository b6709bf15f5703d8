"""MUCS: mirrored unlearning with noise-consistent skew (arXiv 2605.17938, reference code sony/mucs)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..datasets.queries import Queries
from ..models.denoiser import Denoiser
from ..models.draws import Draws, Law, Scope
from ..models.recipe import LATER
from .base import Estimate, Method, Sizes, register
from .engines.levels import Portion, law_of
from .engines.unlearning import NULL_ITEMS, Clamp, Frozen, Trace, Unlearning, check, null_loss, train_losses, unlearn
from .view import View


@dataclass(frozen=True)
class Params:
    """Every switch of the paper; the docstring of the class ``Mucs`` says which defaults are the port's.

    draws: noise draws S of the scores; batch: images per unlearning step; forget_weight: lambda; learning_rate:
    relative to training; score: normalised ``skew`` per draw, or plain ``difference``; same_noise: one set of draws
    for all items and both models, or fresh ones per item and model; epsilon: added to the skew's denominator, as a
    share of the original model's median loss, or as it is unless ``relative_epsilon``; unlearn_law, score_law: noise
    levels of the two phases; unlearn_portion, score_portion: the noisiest share of EDM's grid that is used, ``auto``
    by the images' distances; null_items: images that the null loss is measured on; the other fields are those of
    ``Unlearning``.
    """

    draws: int = 100
    batch: int = 100
    forget_weight: float = 0.2
    learning_rate: float = 0.1
    tolerance: float | None = 0.05
    max_steps: int | None = 200
    bounded: bool = True
    clamp: Clamp = "constant"
    same_noise: bool = True
    score: Literal["skew", "difference"] = "skew"
    epsilon: float = 1e-3
    unlearn_law: Literal["training", "lognormal", "edm-grid"] = "training"
    score_law: Literal["edm-grid", "training", "even"] = "edm-grid"
    frozen: Frozen = "paper"
    unit: Literal["eps", "edm"] | None = "eps"
    relative_epsilon: bool = field(default=True, metadata=LATER)
    unlearn_portion: Portion = field(default=0.7, metadata=LATER)
    score_portion: Portion = field(default=0.7, metadata=LATER)
    null_items: int = field(default=NULL_ITEMS, metadata=LATER)
    same_noise_unlearning: bool = field(default=False, metadata=LATER)
    instance_weights: bool = field(default=False, metadata=LATER)
    augment: float = field(default=0.0, metadata=LATER)

    def unlearning(self, law: Law | None = None) -> Unlearning:
        """Return the settings of the unlearning phase, at levels of a law (None: EDM's own constants)."""
        shared = {name: getattr(self, name) for name in Unlearning.__dataclass_fields__ if name != "law"}
        return Unlearning(law=law or Law(self.unlearn_law), **shared)


@dataclass(frozen=True)
class State:
    """The original model's losses [N, S] and their draws, null loss, the skew's epsilon, and the law of unlearning."""

    losses: Tensor
    draws: Draws
    null: float
    epsilon: float
    law: Law


@register("mucs")
class Mucs(Method):
    """How much each training image's loss rises, in skew, once the query has been unlearned.

    Per query a copy of the model descends (retain loss) - lambda * min(query loss, null loss); the score is the mean
    over S draws of (l_u - l_0) / (l_u + l_0 + eps) under the same noise (attribution/mucs.py of sony/mucs).

    From the paper's code: S = 100, batch = S, lambda 0.2, learning rate a tenth of training's, tolerance 0.05, a fresh
    optimiser without schedule, eval mode, retain batches from the whole training set, the noisiest 70 % of EDM's grid.
    The port's, for networks that predict noise: losses in eps-MSE units, in which the network was trained; the null
    loss measured on the untrained model in those units (1 at every level where it answers 0); unlearning levels from
    the model's own training law; epsilon relative to the loss level; ``frozen`` mapped from DiT to UNet names; a cap on
    steps, because the paper's stopping rule may never fire (the reference ignores its tolerance where it is given a
    number of steps: here tolerance None does so); draws keyed by query id and step.

    The preset ``edm`` is the reference's code on an EDM network: its unit, its process's lognormal levels and grid, its
    names of frozen layers, absolute epsilon, no cap. Not its: retain batches are drawn afresh at each step, not in
    epochs; losses for scores are in single precision, not bfloat16; instance weights compare pixels, not DINO's
    features; augmented images come without a label that says so. ``clamp`` per level is the port's: the loss of a
    network that answers 0, a^2 E[x^2] + b^2 for a process that asks for a x + b eps, with the second moment E[x^2] of
    the training images; it is EDM's constant 1 where that is sigma_data^2.
    """

    needs = ("recipe", "gradients")
    slice_size = 2
    citation = "MUCS, arXiv 2605.17938; reference code github.com/sony/mucs"
    Params = Params
    presets = {
        "paper": Params(draws=40, batch=40, max_steps=100),
        "quick": Params(draws=8, batch=16, max_steps=20, learning_rate=1.0, score="difference"),
        "edm": Params(
            unit="edm",
            unlearn_law="lognormal",
            frozen="reference",
            max_steps=None,
            relative_epsilon=False,
            null_items=20_000,
        ),
        "to-the-end": Params(draws=40, batch=40, forget_weight=2.0),
    }
    notes = {
        "paper": "40 draws and batches of 40 where the paper has 100; at most 100 steps, which on digits end at .25 to "
        ".30 of the null loss where the paper's go on to .95 (with lambda .2 even 3,000 steps end at .42)",
        "quick": "8 draws, batches of 16, at most 20 steps; learning rate and score as tuned on digits (dev x open)",
        "edm": "for EDM networks, as the paper's code: no cap on steps, so that only .95 of the null loss ends it",
        "to-the-end": "as paper, until .95 of the null loss: lambda 2, with which 8 of 8 held-out digits get there in "
        "24 to 35 steps; at most 200",
    }
    search = {
        "learning_rate": (0.1, 0.3, 1.0),
        "score": ("skew", "difference"),
        "score_law": ("edm-grid", "even"),
        "frozen": ("paper", "biases"),
        "forget_weight": (0.2, 1.0),
    }
    ablations = {
        "fresh-noise": {"same_noise": False},
        "skew": {"score": "skew"},
        "difference": {"score": "difference"},
        "unbounded": {"bounded": False},
        "clamp-per-level": {"clamp": "per-level"},
        "grid-even": {"score_law": "even"},
        "grid-training": {"score_law": "training"},
        "unlearn-lognormal": {"unlearn_law": "lognormal"},
        "lambda-0.05": {"forget_weight": 0.05},
        "lambda-0.2": {"forget_weight": 0.2},
        "lambda-1": {"forget_weight": 1.0},
        "lambda-5": {"forget_weight": 5.0},
        "steps-5": {"max_steps": 5},
        "steps-10": {"max_steps": 10},
        "steps-20": {"max_steps": 20},
        "steps-40": {"max_steps": 40},
        "steps-100": {"max_steps": 100},
        "frozen-none": {"frozen": "none"},
        "frozen-biases": {"frozen": "biases"},
        "frozen-paper": {"frozen": "paper"},
        "unlearn-grid": {"unlearn_law": "edm-grid"},
        "unlearn-same-noise": {"same_noise_unlearning": True},
        "instance-weights": {"instance_weights": True},
        "augment": {"augment": 0.12},
        "portion-auto": {"score_portion": "auto"},
    }

    def fit(self, view: View) -> State:
        """Return the original model's losses on the training set and the null loss.

        Raises UserError where the parameters do not suit the model.
        """
        params, model = self.params, view.model()
        law = law_of(view, params.unlearn_law, params.unlearn_portion, params.batch, unlearning=True)
        check(model, params.unlearning(law))
        draws = self._draws(view, "score")
        losses = self._losses(view, model, draws)
        epsilon = params.epsilon * (float(losses.median()) if params.relative_epsilon else 1.0)
        return State(losses, draws, null_loss(view, law, params.unit, params.null_items), epsilon, law)

    def _draws(self, view: View, name: str) -> Draws:
        law = law_of(view, self.params.score_law, self.params.score_portion, self.params.draws)
        return view.draws(self.params.draws, law, self._scope, name)

    def _losses(self, view: View, model: Denoiser, draws: Draws) -> Tensor:
        return train_losses(view, model, lambda net, batch: view.losses(net, batch, draws, self.params.unit))

    @property
    def _scope(self) -> Scope:
        return "shared" if self.params.same_noise else "item"

    def attribute(self, view: View, state: State, queries: Queries) -> Tensor:
        """Return scores [Q, N]; ``diagnostics['unlearning']`` says per query how far its loss got."""
        index = view.progress(range(len(queries)), "unlearning", len(queries))
        return torch.stack([self._one(view, state, queries.pick([i])) for i in index])

    def _one(self, view: View, state: State, query: Queries) -> Tensor:
        model, trace = unlearn(view, query.batch, self.params.unlearning(state.law), state.null)
        self._note(query.ids[0], trace)
        draws = state.draws if self.params.same_noise else self._draws(view, f"score/{query.ids[0]}")
        return self.compare(self._losses(view, model, draws), state.losses, state.epsilon)

    def compare(self, unlearned: Tensor, original: Tensor, epsilon: float) -> Tensor:
        """Return scores [N] from losses [N, S]; with unequal noise, losses are averaged over draws first."""
        if not self.params.same_noise:
            unlearned, original = unlearned.mean(1, keepdim=True), original.mean(1, keepdim=True)
        rise = unlearned - original
        if self.params.score == "skew":
            rise = rise / (unlearned + original + epsilon)
        return rise.mean(1)

    def _note(self, query: str, trace: Trace) -> None:
        self.diagnostics.setdefault("unlearning", {})[query] = asdict(trace)

    def estimate(self, sizes: Sizes) -> Estimate | None:
        """Losses of all items once and once per query, and at most ``max_steps`` updates per query."""
        if self.params.max_steps is None:
            return None
        scoring = sizes.n_items * self.params.draws * (1 + sizes.n_queries)
        steps = self.params.max_steps * sizes.n_queries
        held = 8 * sizes.n_items * self.params.draws + 4 * sizes.n_parameters + 12 * sizes.n_trained
        return Estimate(scoring + min(self.params.null_items, sizes.n_items), steps * 2 * self.params.batch, bytes=held)

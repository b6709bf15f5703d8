"""MUCS: mirrored unlearning with noise-consistent skew (arXiv 2605.17938, reference code sony/mucs)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.queries import Queries
from ..models.draws import Draws, Law, Scope
from .base import Estimate, Method, register
from .engines.unlearning import NULL_ITEMS, Clamp, Frozen, Trace, Unlearning, null_loss, train_losses, unlearn
from .view import View


@dataclass(frozen=True)
class Params:
    """Every switch of the paper; the comments of the class ``Mucs`` say which defaults are the port's.

    draws: noise draws S of the scores; batch: images per unlearning step; forget_weight: lambda; learning_rate:
    relative to training; score: normalised ``skew`` per draw, or plain ``difference``; same_noise: one set of draws
    for all items and both models, or fresh ones per item and model; epsilon: added to the skew's denominator, as a
    share of the original model's median loss; unlearn_law, score_law: noise levels of the two phases; the other fields
    are those of ``Unlearning``.
    """

    draws: int = 100
    batch: int = 100
    forget_weight: float = 0.2
    learning_rate: float = 0.1
    tolerance: float = 0.05
    max_steps: int | None = 200
    bounded: bool = True
    clamp: Clamp = "constant"
    same_noise: bool = True
    score: Literal["skew", "difference"] = "skew"
    epsilon: float = 1e-3
    unlearn_law: Literal["training", "lognormal"] = "training"
    score_law: Literal["edm-grid", "training", "even"] = "edm-grid"
    frozen: Frozen = "paper"
    unit: Literal["eps", "edm"] = "eps"

    def unlearning(self) -> Unlearning:
        """Return the settings of the unlearning phase."""
        shared = {name: getattr(self, name) for name in Unlearning.__dataclass_fields__ if name != "law"}
        return Unlearning(law=Law(self.unlearn_law), **shared)


@dataclass(frozen=True)
class State:
    """The original model's losses [N, S], their draws, the null loss and the skew's epsilon."""

    losses: Tensor
    draws: Draws
    null: float
    epsilon: float


@register("mucs")
class Mucs(Method):
    """How much each training image's loss rises, in skew, once the query has been unlearned.

    Per query a copy of the model descends (retain loss) - lambda * min(query loss, null loss); the score is the mean
    over S draws of (l_u - l_0) / (l_u + l_0 + eps) under the same noise (attribution/mucs.py of sony/mucs).

    From the paper's code: S = 100, batch = S, lambda 0.2, learning rate a tenth of training's, tolerance 0.05, a fresh
    optimiser without schedule, eval mode, retain batches from the whole training set, the noisiest 70 % of EDM's grid.
    The port's, for eps-prediction networks: losses in eps-MSE units, in which the network was trained; the null loss
    measured on the untrained model in those units (about 1 at every level); unlearning levels from the model's own
    training law; epsilon relative to the loss level; ``frozen`` mapped from DiT to UNet names; a cap on steps, because
    the paper's stopping rule may never fire; draws keyed by query id and step.
    """

    needs = ("recipe", "gradients")
    slice_size = 2
    citation = "MUCS, arXiv 2605.17938; reference code github.com/sony/mucs"
    Params = Params
    presets = {
        "paper": Params(draws=40, batch=40, max_steps=100),
        "quick": Params(draws=8, batch=16, max_steps=20, learning_rate=1.0, score="difference"),
    }
    notes = {
        "paper": "40 draws and batches of 40 where the paper has 100; at most 100 steps",
        "quick": "8 draws, batches of 16, at most 20 steps; learning rate and score as tuned on digits (dev x open)",
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
    }

    def fit(self, view: View) -> State:
        """Return the original model's losses on the training set and the null loss."""
        unlearning = self.params.unlearning()
        draws = view.draws(self.params.draws, Law(self.params.score_law), self._scope, "score")
        model = view.model()
        losses = train_losses(view, model, lambda net, batch: view.losses(net, batch, draws, self.params.unit))
        epsilon = self.params.epsilon * float(losses.median())
        return State(losses, draws, null_loss(view, unlearning.law, self.params.unit), epsilon)

    @property
    def _scope(self) -> Scope:
        return "shared" if self.params.same_noise else "item"

    def attribute(self, view: View, state: State, queries: Queries) -> Tensor:
        """Return scores [Q, N]; ``diagnostics['unlearning']`` says per query how far its loss got."""
        index = view.progress(range(len(queries)), "unlearning", len(queries))
        return torch.stack([self._one(view, state, queries.pick([i])) for i in index])

    def _one(self, view: View, state: State, query: Queries) -> Tensor:
        model, trace = unlearn(view, query.batch, self.params.unlearning(), state.null)
        self._note(query.ids[0], trace)
        name = "score" if self.params.same_noise else f"score/{query.ids[0]}"
        draws = view.draws(self.params.draws, Law(self.params.score_law), self._scope, name)
        losses = train_losses(view, model, lambda net, batch: view.losses(net, batch, draws, self.params.unit))
        return self.compare(losses, state.losses, state.epsilon)

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

    def estimate(self, n_items: int, n_queries: int, n_parameters: int) -> Estimate:
        """Losses of all items once and once per query, and at most ``max_steps`` updates per query."""
        scoring = n_items * self.params.draws * (1 + n_queries)
        steps = (self.params.max_steps or 0) * n_queries
        held = 8 * n_items * self.params.draws + 16 * n_parameters
        return Estimate(scoring + min(NULL_ITEMS, n_items), steps * 2 * self.params.batch, bytes=held)

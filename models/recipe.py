"""What a model is (ModelSpec) and how it was trained (Recipe), as plain values with a hash."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from ..seeds import digest

LATER = {"later": True}  # of fields that came after values without them were stored


def compact(value: Any) -> Any:
    """Return a dataclass as plain values, without fields marked LATER that have their default.

    So what was written, and hashed, before a field existed still is what it was.
    """
    if is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in fields(value) if not (f.metadata.get("later") and getattr(value, f.name) == _default(f))]
        return {f.name: compact(getattr(value, f.name)) for f in kept}
    if isinstance(value, dict):
        return {name: compact(part) for name, part in value.items()}
    return type(value)(map(compact, value)) if isinstance(value, list | tuple) else value


def _default(f: Field[Any]) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


@dataclass(frozen=True)
class Sampler:
    """How images are made from initial noise, deterministically where ``eta`` is 0, by the model's kind of process.

    DDPM: DDIM (arXiv 2010.02502) with ``steps`` steps and noise share ``eta``; EDM: Heun's method over ``steps`` levels
    (arXiv 2206.00364, algorithm 1 without churn); flow: Euler's. clip: whether predicted images are clipped to [-1, 1]
    at each step, as pixel models want and latent ones do not (DDIM only).
    """

    steps: int = 25
    eta: float = 0.0
    clip: bool = True


@dataclass(frozen=True)
class AutoencoderSpec:
    """A frozen autoencoder: a model class of diffusers and its arguments; latents are (code - shift) * scale."""

    architecture: str
    config: dict[str, Any]
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (arXiv 2106.09685): to the weights W of a layer, alpha / rank times B A is added.

    targets: a regular expression that the whole names of the adapted layers match; alpha: None is ``rank``.
    """

    rank: int
    targets: str = r".*\.to_(q|k|v|out\.0)"
    alpha: float | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A denoiser's architecture (a model class of diffusers and its arguments), noise process and sampler.

    process: its ``kind`` (ddpm, edm or flow; ddpm where none is said) and that kind's arguments, for ddpm those of
    diffusers' DDPMScheduler; null: what stands for no condition by the network's argument names, a label or ``zeros``
    (what is neither, such as the empty prompt's embedding, comes with the training set); autoencoder: of latent models;
    trainable: a regular expression that the whole names of the trained parameters match, or adapters; empty: all train.
    """

    architecture: str
    config: dict[str, Any]
    process: dict[str, Any] = field(default_factory=dict)
    sampler: Sampler = Sampler()
    null: dict[str, int | Literal["zeros"]] = field(default_factory=dict, metadata=LATER)
    autoencoder: AutoencoderSpec | None = field(default=None, metadata=LATER)
    trainable: str | LoRA = field(default="", metadata=LATER)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelSpec:
        """Rebuild a specification from its plain values."""
        kinds = {"sampler": Sampler, "autoencoder": AutoencoderSpec, "trainable": LoRA}
        parts = {name: kind(**value[name]) for name, kind in kinds.items() if isinstance(value.get(name), dict)}
        return cls(**{**value, **parts})


@dataclass(frozen=True)
class Tuning:
    """Further updates of a trained model: on a few exemplars, among items that it was trained on before.

    n_before: items 0..n_before-1 are the latter, of which the rest of a batch is drawn anew at each update, so that the
    model keeps what it knows (Custom Diffusion, arXiv 2212.04488); the exemplars come after them in turn. steps: how
    many updates; share: of each batch that are exemplars; rate: the constant learning rate, as a share of the recipe's;
    seed: of all that these updates draw.
    """

    n_before: int
    steps: int
    share: float
    rate: float
    seed: int


@dataclass(frozen=True)
class Recipe:
    """Model and optimisation: everything besides data and seed that decides what training yields.

    Training is AdamW on the squared error of the network's answer (of noise prediction the eps-MSE) with linear warm-up
    then cosine decay to zero, gradients clipped at ``clip_norm`` (0: they are not), and an exponential moving average
    of the weights that is the model; ``checkpoints`` are the updates after which the average is kept besides the last
    one. Every model sees ``steps`` updates, however small its training set. cond_drop: the share of items that train
    without conditions. keep_raw: whether a task's base model keeps its weights before averaging beside the averaged
    ones. tuning: what came after these ``steps`` and from their averaged weights, without averaging, of a model that
    was tuned. assumed: nobody knows how the model was trained, and only the optimiser's settings and the batch size
    stand for something.
    """

    model: ModelSpec
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    checkpoints: tuple[int, ...] = ()
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    cond_drop: float = field(default=0.0, metadata=LATER)
    keep_raw: bool = field(default=False, metadata=LATER)
    tuning: Tuning | None = field(default=None, metadata=LATER)
    assumed: bool = field(default=False, metadata=LATER)

    @property
    def updates(self) -> int:
        """How many updates there were in all: training's and tuning's."""
        return self.steps + (self.tuning.steps if self.tuning else 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return compact(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Recipe:
        """Rebuild a recipe from ``to_json``'s values, with or without a trip through JSON."""
        lists = {name: tuple(value[name]) for name in ("checkpoints", "betas")}
        tuning = {"tuning": Tuning(**value["tuning"])} if isinstance(value.get("tuning"), dict) else {}
        return cls(**{**value, **lists, **tuning, "model": ModelSpec.from_json(value["model"])})

    def hash(self) -> str:
        """Return a hash of all values."""
        return digest(self.to_json())

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of update ``step`` (0-based)."""
        if self.tuning is not None and step >= self.steps:
            return self.learning_rate * self.tuning.rate
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
